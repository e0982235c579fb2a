"""Connecting to Ray: the cluster that RAY_ADDRESS names (as inside `ray job submit`), else one on this machine."""

import logging
import os
import sys
import warnings
from typing import Any


def connect() -> None:
    """Connect this process to Ray once; a further call changes nothing."""
    # Ray reads this at import; reports of usage would leave the machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    # Ray starts its daemons by fork and exec at once, which is harmless to Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if "RAY_ADDRESS" not in os.environ:
        options |= {"address": "local", "include_dashboard": False}
        # Nobody takes this machine away; the watcher is one more process to start with each training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # A worker for each core at once would take the cores from those that the job itself is about to start.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    ray.init(**options)
    context = ray.data.DataContext.get_current()
    # An engine that dies while it starts is started anew; one that cannot start at all still ends the job.
    context.max_consecutive_actor_init_deaths = 3
    context.enable_progress_bars = False  # the stage runner shows one bar, in rows
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private.worker", "ray.llm", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Without a handler here, its loggers each get one of their own, and tell all they do.
    logging.getLogger("ray.llm").addHandler(logging.lastResort or logging.NullHandler())


def require_gpus(gpus: float, setting: str) -> None:
    """See that there are GPUs for what is about to start; Ray would wait for them for ever, and say nothing.

    Args:
        gpus: so many, without which it cannot start.
        setting: that asks for them.

    Raises:
        RuntimeError: this machine has fewer. A cluster may grow, so there it is only told what is waited for.
    """
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)
    if there >= gpus:
        return
    if "RAY_ADDRESS" not in os.environ:
        raise RuntimeError(
            f"{setting} asks for {gpus:g} GPUs in all, and Ray sees {there:g} on this machine; give fewer workers, or "
            f"--{setting} 0 to run on the CPU"
        )
    print(
        f"waiting for {gpus:g} GPUs in all ({setting}); the cluster has {there:g} now",
        file=sys.stderr,
        flush=True,
    )
