"""A Ray cluster of several nodes on this machine, each a raylet, that can be killed.

    with running_cluster(workers=2) as cluster:
        job = start("decode", workspace, flags, log)  # on this cluster, by RAY_ADDRESS
        cluster.kill(cluster.workers[0])

The head has no CPUs, as in cluster.yaml: the driver runs there, and all work on the other nodes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._private.services import get_node_ip_address

from tests.helpers.processes import command_line, free_port, wait_until
from tests.helpers.ray_head import TOKEN, until_started

# A node that answers no more is dead after five of these checks; by default a minute passes.
HEALTH_CHECKS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
STORE = 150 * 2**20
SLICE_S = 0.2  # a slow process runs for a tenth of it


@dataclass(frozen=True)
class RunningNode:
    """A node, and the `ray start` process that is the ancestor of all others."""

    process: "subprocess.Popen[str]"


@dataclass
class RunningCluster:
    """A head node and its workers.

    Attributes:
        address: of the head, for RAY_ADDRESS.
        nodes: all nodes that live, the head first.
    """

    address: str = field(default_factory=lambda: f"{get_node_ip_address()}:{free_port()}")
    nodes: list[RunningNode] = field(default_factory=list)

    @property
    def head(self) -> RunningNode:
        """The node of drivers."""
        return self.nodes[0]

    @property
    def workers(self) -> list[RunningNode]:
        """The other nodes that live."""
        return self.nodes[1:]

    def start_head(self, options: dict[str, Any]) -> None:
        """Start a head without CPUs."""
        config = json.dumps(HEALTH_CHECKS)
        flags = ["--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0"]
        flags += ["--include-dashboard=false", f"--system-config={config}"]
        self._start(1, [*flags, *as_flags(options)])

    def add(self, count: int = 1, cpus: int = 1, **options: Any) -> None:
        """Add worker nodes, and wait until they run."""
        flags = [f"--address={self.address}", f"--num-cpus={cpus}", "--include-log-monitor=false"]
        self._start(count, [*flags, *as_flags(options)])

    def _start(self, count: int, flags: list[str]) -> None:
        for _ in range(count):  # together, two could choose one name for their sockets
            node = RunningNode(start_node(flags))
            self.nodes.append(node)
            log = until_started(node.process)
            if node.process.poll() is not None:
                pytest.fail(f"no node started: {''.join(log)}")

    def kill(self, node: RunningNode) -> None:
        """End a node as a power failure does: all its processes at once."""
        for process in processes_of(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):  # those without a parent
            os.killpg(node.process.pid, signal.SIGKILL)
        with node.process:  # closes its pipe and waits
            self.nodes.remove(node)

    def close(self) -> None:
        """Kill all nodes."""
        while self.nodes:
            self.kill(self.nodes[-1])


def start_node(flags: Sequence[str]) -> "subprocess.Popen[str]":
    """Start the process of a node.

    Nodes are not started in the process of the tests: a client of Ray there that is left over
    ends its process a minute after the head is lost.
    """
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
        "--num-gpus=0", "--min-worker-port=0", "--max-worker-port=0",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}",
        *flags,
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def as_flags(options: dict[str, Any]) -> list[str]:
    """Further options of `ray start`; each node has a small store by default."""
    options = {"object_store_memory": STORE} | options
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def processes_of(node: RunningNode, name: str = "") -> list[psutil.Process]:
    """The living processes of a node whose command line has a name, workers included."""
    try:
        parent = psutil.Process(node.process.pid)
        found = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if any(name in part for part in command_line(process))]


def wait_for_worker(
    job: "subprocess.Popen[bytes]",
    cluster: RunningCluster,
    worker: str,
    ready: Callable[[], bool],
    log: Path,
) -> RunningNode:
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
        head: further options of the head, such as `object_store_memory`.
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
        for name, value in TOKEN.items():
            environment.setenv(name, value)
        # By default nodes and drivers wait a minute for a head that is dead.
        environment.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        cluster = RunningCluster()
        try:
            cluster.start_head(head or {})
            cluster.add(workers, cpus, **options)
            environment.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            cluster.close()


@contextlib.contextmanager
def slowed(node: RunningNode) -> Iterator[None]:
    """Let the workers of a node, and their children, run for a tenth of the time only."""
    done = threading.Event()

    def stop_and_go() -> None:
        while not done.is_set():
            # The raylet goes on: a node that does not answer is not slow, but dead.
            on = (os.getpid(), node.process.pid)
            slow = [process for process in processes_of(node) if process.ppid() not in on]
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
