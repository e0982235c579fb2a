"""A Ray cluster of several nodes on this machine, each a raylet, that can be killed.

    with running_cluster(workers=2) as cluster:
        job = start("decode", workspace, flags, log)  # on this cluster, by RAY_ADDRESS
        cluster.kill(cluster.workers[0])

The head has no CPUs, as in cluster.yaml: the driver runs there, and all work on the other nodes.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.helpers.processes import command_line, wait_until

if TYPE_CHECKING:
    from ray._private.node import Node

# A node that answers no more is dead after five of these checks; by default a minute passes.
HEALTH_CHECKS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
SLICE_S = 0.2  # a slow process runs for a tenth of it


@dataclass
class RunningCluster:
    """A head node and its workers.

    Attributes:
        head: the node of drivers.
        workers: the other nodes that live.
    """

    head: "Node"
    workers: list["Node"] = field(default_factory=list)

    def add(self, cpus: int = 1, **options: Any) -> "Node":
        """Add a node, and wait until the head knows it."""
        node = start_node(cpus, self.head, **options)
        self.workers.append(node)
        return node

    def kill(self, node: "Node") -> None:
        """End a node as a power failure does: all its processes at once."""
        for process in processes_of(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        if node in self.workers:
            self.workers.remove(node)

    def close(self) -> None:
        """Kill all nodes."""
        for node in [*self.workers, self.head]:
            self.kill(node)


def start_node(cpus: int, head: "Node | None", **options: Any) -> "Node":
    """Start a node, which is a head if there is none yet."""
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    parameters = RayParams(
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=options.pop("object_store_memory", 150 * 2**20),
        min_worker_port=0,
        max_worker_port=0,
        include_dashboard=False,
        include_log_monitor=head is None,
        _system_config=HEALTH_CHECKS | options.pop("system_config", {}) if head is None else None,
        gcs_address=head.gcs_address if head else None,
        **options,
    )
    node = Node(parameters, head=head is None, shutdown_at_exit=True, spawn_reaper=False)
    services.wait_for_node(node.gcs_address, node.plasma_store_socket_name, 60)
    return node


def processes_of(node: "Node", name: str = "") -> list[psutil.Process]:
    """The living processes of a node whose command line has a name, workers included."""
    own = [info.process.pid for infos in node.all_processes.values() for info in infos]
    found: list[psutil.Process] = []
    for pid in own:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return [process for process in found if any(name in part for part in command_line(process))]


def wait_for_worker(
    job: "subprocess.Popen[bytes]",
    cluster: RunningCluster,
    worker: str,
    ready: Callable[[], bool],
    log: Path,
) -> "Node":
    """Wait until a condition holds while a node runs a process of a name; returns the node.

    A process of tasks has the name of its task for as long as it runs.
    """
    busy: list[Any] = []

    def happened() -> bool:
        busy[:] = [node for node in cluster.workers if processes_of(node, worker)]
        return bool(busy) and ready()

    wait_until(job, happened, log)
    return busy[0]


@contextlib.contextmanager
def running_cluster(
    workers: int = 2, cpus: int = 1, head: dict[str, Any] | None = None, **options: Any
) -> Iterator[RunningCluster]:
    """Start a cluster, to which the processes started meanwhile connect; kill it at the end.

    Args:
        workers: number of nodes besides the head.
        cpus: CPUs of each of them.
        head: further options of the head, such as `system_config`.
        options: of the workers, such as `object_store_memory`.
    """
    # Ray's sockets have paths of at most 107 characters: pytest's own folders are too deep.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name in os.environ:  # those that Ray set in this process for another cluster
            if name.startswith("RAY_"):
                environment.delenv(name)
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # By default nodes and drivers wait a minute for a head that is dead.
        environment.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        cluster = RunningCluster(start_node(0, None, **head or {}))
        try:
            for _ in range(workers):
                cluster.add(cpus, **options)
            environment.setenv("RAY_ADDRESS", cluster.head.gcs_address)
            yield cluster
        finally:
            cluster.close()


@contextlib.contextmanager
def slowed(node: "Node") -> Iterator[None]:
    """Let the workers of a node, and their children, run for a tenth of the time only."""
    done = threading.Event()

    def stop_and_go() -> None:
        while not done.is_set():
            # The raylet goes on: a node that does not answer is not slow, but dead.
            slow = [process for process in processes_of(node) if process.ppid() != os.getpid()]
            signal_all(slow, "suspend")
            done.wait(0.9 * SLICE_S)
            signal_all(slow, "resume")
            done.wait(0.1 * SLICE_S)

    thread = threading.Thread(target=stop_and_go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def signal_all(processes: list[psutil.Process], method: str) -> None:
    """Call a method of all processes that still live."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, method)()
