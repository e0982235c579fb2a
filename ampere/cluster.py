"""Connecting to Ray: the cluster at RAY_ADDRESS (set by `ray job submit`), else a local one."""

import logging
import os
import sys
import warnings
from typing import Any


def connect() -> None:
    """Connect this process to Ray; further calls do nothing."""
    # Ray reads this at import. Usage reports would be sent to Ray's servers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    # Ray forks its daemons and executes them at once, which is harmless to Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if "RAY_ADDRESS" not in os.environ:
        options |= {"address": "local", "include_dashboard": False}
        # A local machine is not preempted, and the watcher is an extra process for each training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # A prestarted worker per core would compete for cores with the workers that the job starts.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    ray.init(**options)
    context = ray.data.DataContext.get_current()
    # Restart an engine that dies while it starts, but fail the job if it cannot start at all.
    context.max_consecutive_actor_init_deaths = 3
    context.enable_progress_bars = False  # the stage runner shows one bar, in rows
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private.worker", "ray.llm", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Without a handler here, its child loggers each add one of their own and log every detail.
    logging.getLogger("ray.llm").addHandler(logging.lastResort or logging.NullHandler())


def require_gpus(gpus: float, setting: str) -> None:
    """Check that there are enough GPUs, for which Ray would wait forever without a message.

    A cluster may still add GPUs, so there it prints that the job waits for them.

    Args:
        gpus: number of GPUs required to start.
        setting: name of the setting that requests them.

    Raises:
        RuntimeError: this machine has too few GPUs.
    """
    import ray

    available = ray.cluster_resources().get("GPU", 0.0)
    if available >= gpus:
        return
    if "RAY_ADDRESS" not in os.environ:
        raise RuntimeError(
            f"not enough GPUs: {setting} requests {gpus:g} in total, this machine has "
            f"{available:g}. Use fewer workers, or --{setting} 0 to run on the CPU"
        )
    print(
        f"waiting for {gpus:g} GPUs in total ({setting}); the cluster has {available:g} now",
        file=sys.stderr,
        flush=True,
    )
