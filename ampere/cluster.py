"""Connecting to Ray: the cluster at RAY_ADDRESS (set by `ray job submit`), else a local one."""

import gc
import logging
import os
import sys
import warnings
from typing import Any

from ampere import logs, profiles
from ampere.interrupts import handlers_kept

PROBE_S = 10.0  # for one attempt to reach the head node; Ray itself tries for 13 minutes

# Before the first retry of a task whose actor does not answer; doubled before each further one.
# Ray takes 15 s or more to declare a lost node dead, and only then starts its actors elsewhere:
# retries without a pause would all be lost.
ACTOR_RETRY_MS = "5000"
# Batches of a pool over its actors. By default, 0.5, Ray takes a new actor away again at the first
# moment in which half of the pool waits: its pause after a pool grew ends before a model is loaded.
POOL_SHRINKS_BELOW = 0.25


def connect(gpus: float = 0.0, setting: str = "") -> None:
    """Connect this process to Ray; a further call only frees what a failed job still holds.

    Args:
        gpus: number of GPUs without which the job cannot start. A cluster may still add GPUs, so
            there it prints that the job waits for them.
        setting: name of the setting that requests them.

    Raises:
        RuntimeError: the cluster is unreachable, or this machine has too few GPUs.
        ValueError: RAY_ADDRESS is no address of a cluster.
    """
    # Ray reads these at import. Usage reports would be sent to Ray's servers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = cluster_address()
    if address is not None:
        os.environ.setdefault("RAY_task_actor_unavailable_retry_delay_base_ms", ACTOR_RETRY_MS)
    import ray

    # The actors of a job that failed in this process hold their cores until Ray's objects are
    # collected, which refer to each other. A training that needs these cores would wait for ever.
    gc.collect()
    if address is None:
        require_gpus(gpus, setting)
    if not ray.is_initialized():
        if address is not None:
            check_reachable(address)
        _start(local=address is None)
    if address is not None:
        report_missing_gpus(gpus, setting)


def _start(*, local: bool) -> None:
    """Start a Ray of this machine, or connect to the cluster."""
    import ray

    # Ray forks its daemons and executes them at once, which is harmless to Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    # Of small jobs, in which a bound on tasks does nothing.
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if local:
        options |= {"address": "local", "include_dashboard": False}
        # A local machine is not preempted, and the watcher is an extra process for each training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # A prestarted worker per core would compete for cores with the workers that the job starts.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # The workers of a cluster have other disks, where nobody would look for their profiles.
    if logs.is_json() or (local and profiles.is_tracked()):
        options["runtime_env"] = {
            "env_vars": logs.worker_variables() if logs.is_json() else {},
            "worker_process_setup_hook": "ampere.cluster.set_up_worker",
        }
    with handlers_kept():
        ray.init(**options)
    context = ray.data.DataContext.get_current()
    # Restart an engine that dies while it starts, but fail the job if it cannot start at all.
    context.max_consecutive_actor_init_deaths = 3
    context.autoscaling_config.actor_pool_util_downscaling_threshold = POOL_SHRINKS_BELOW
    context.enable_progress_bars = False  # the stage runner shows one bar, in rows
    context.print_on_execution_start = False
    for name in ("ray.data", "ray._private.worker", "ray.llm", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Without a handler here, its child loggers each add one of their own and log every detail.
    logging.getLogger("ray.llm").addHandler(logging.lastResort or logging.NullHandler())


def set_up_worker() -> None:
    """What a worker does at its start, if its job asks for it: JSON logs, a memory profile."""
    if logs.is_json():
        logs.configure_worker()
    profiles.track_worker()


def disconnect() -> None:
    """End all work of this process on Ray; `connect` starts or joins it again."""
    if is_connected():
        import ray

        with handlers_kept():
            ray.shutdown()


def is_connected() -> bool:
    """Whether this process is connected to Ray; without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def cluster_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None: a Ray of this machine alone."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_reachable(address: str) -> None:
    """Check in seconds that the head node of a cluster answers.

    Args:
        address: `HOST:PORT`, or `auto` for the cluster of this machine.

    Raises:
        ValueError: the address has another form.
        RuntimeError: the head node does not answer.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel  # with the cluster's TLS and token
    from ray._private.services import canonicalize_bootstrap_address
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    host, _, port = address.rpartition(":")
    is_port = port.isdecimal() and 1 <= int(port) <= 65535
    if address != "auto" and not (host and "/" not in address and is_port):
        raise ValueError(
            f"RAY_ADDRESS is {address!r}; expected HOST:PORT of the head node (port 6379 by "
            "default), or auto on a machine of the cluster. The dashboard's http://... is for `ray "
            "job submit`, and Ray Client (ray://...) is not supported; unset RAY_ADDRESS to run on "
            "this machine"
        )
    try:
        reached = canonicalize_bootstrap_address(address)
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(
            init_grpc_channel(reached, [("grpc.enable_http_proxy", 0)])
        )
        stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=PROBE_S)
    except (OSError, grpc.RpcError) as error:
        cause = error.details() if isinstance(error, grpc.Call) else str(error)
        raise RuntimeError(
            f"cannot reach the Ray cluster at RAY_ADDRESS={address} ({cause}). Check that its head "
            "node runs, that this is its address and port (6379 by default), that no firewall is "
            "between, and the token if it uses one; unset RAY_ADDRESS to run on this machine"
        ) from error


def require_gpus(gpus: float, setting: str) -> None:
    """Check that this machine has enough GPUs, for which Ray would wait forever without a message.

    Args:
        gpus: number of GPUs required to start.
        setting: name of the setting that requests them.

    Raises:
        RuntimeError: this machine has too few GPUs.
    """
    if gpus and (available := local_gpus()) < gpus:
        raise RuntimeError(
            f"not enough GPUs: {setting} requests {gpus:g} in total, this machine has "
            f"{available:g}. Use fewer workers, or --{setting} 0 to run on the CPU"
        )


def local_gpus() -> float:
    """GPUs of this machine's Ray, which need not run yet."""
    import ray
    from ray._private.accelerators import get_accelerator_manager_for_resource

    if ray.is_initialized():
        return ray.cluster_resources().get("GPU", 0.0)
    manager = get_accelerator_manager_for_resource("GPU")
    present = manager.get_current_node_num_accelerators()
    visible = manager.get_current_process_visible_accelerator_ids()  # such as CUDA_VISIBLE_DEVICES
    return present if visible is None else min(present, len(visible))


def report_missing_gpus(gpus: float, setting: str) -> None:
    """Print that the job waits for GPUs that the cluster may still add."""
    import ray

    if (available := ray.cluster_resources().get("GPU", 0.0)) < gpus:
        print(
            f"waiting for {gpus:g} GPUs in total ({setting}); the cluster has {available:g} now",
            file=sys.stderr,
            flush=True,
        )
