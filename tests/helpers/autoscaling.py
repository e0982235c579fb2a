"""A Ray cluster of this machine whose autoscaler adds and removes nodes, each a raylet of its own.

Ray's `cluster_utils.AutoscalingCluster` ends every Ray on the machine when it starts, so the head
is started here, with ports and a folder of its own.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray._private.services import get_node_ip_address

from tests.helpers.processes import command_line, free_port
from tests.helpers.ray_head import TOKEN

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ROOT = Path(__file__).parents[2]
HEAD_ID = "f" * 51 + "00000"  # of Ray's `fake_multinode` provider, which counts from it


@dataclass
class AutoscalingCluster:
    """A running cluster.

    Attributes:
        address: of its head, for RAY_ADDRESS.
        environment: of a process that uses it.
        head: the `ray start` process, which leads the group of all others.
        folder: of its sessions and logs.
    """

    address: str
    environment: dict[str, str]
    head: subprocess.Popen[bytes]
    folder: Path

    def raylets(self) -> dict[str, psutil.Process]:
        """Node id -> process of each worker node."""
        found = {}
        for process in psutil.Process(self.head.pid).children(recursive=True):
            line = command_line(process)
            if line and Path(line[0]).name == "raylet":
                with suppress(psutil.Error):
                    node = process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING", HEAD_ID)
                    if node != HEAD_ID:
                        found[node] = process
        return found

    def run(self, arguments: Sequence[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a Python process that uses the cluster; its output goes to `log`."""
        with log.open("w") as file:
            return subprocess.Popen(
                [sys.executable, *arguments],
                stdout=file,
                stderr=file,
                env=self.environment | variables,
                start_new_session=True,
            )

    def wait_until(self, happened: Callable[[], bool], seconds: float) -> bool:
        """Whether a condition comes true in that time."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end:
                return False
            with suppress(subprocess.TimeoutExpired):  # the pause between two looks
                self.head.wait(timeout=0.3)
                raise RuntimeError("the head node ended")
        return True

    def nodes_during(self, seconds: float) -> set[str]:
        """Ids of all worker nodes that are there at any time."""
        seen: set[str] = set()
        self.wait_until(lambda: bool(seen.update(self.raylets())), seconds)
        return seen


def cluster_config(address: str, max_nodes: int, resources: Mapping[str, float]) -> dict[str, Any]:
    """A head without CPUs, and from 0 to `max_nodes` workers with some resources each."""
    return {
        "cluster_name": "autoscaled",
        "max_workers": max_nodes,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            # As `type: fake_multinode`, whose file of defaults the wheel lacks.
            "type": "external",
            "module": PROVIDER,
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": dict(resources),
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "initialization_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def autoscaling_cluster(
    max_nodes: int, resources: Mapping[str, float]
) -> Iterator[AutoscalingCluster]:
    """Start a head node without CPUs; end all processes of the cluster afterwards."""
    # Ray creates sockets in this folder, with paths of at most 107 characters.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        # Not the loopback address: Ray would replace it by this one.
        folder, address = Path(name), f"{get_node_ip_address()}:{free_port()}"
        config = folder / "autoscaling.json"
        config.write_text(json.dumps(cluster_config(address, max_nodes, resources)))
        cluster = AutoscalingCluster(address, environment(address), _start(address, config), folder)
        try:
            _until_started(cluster)
            yield cluster
        finally:
            _end(cluster)


def environment(address: str) -> dict[str, str]:
    """Of a process that uses the cluster: this process's, without another cluster's variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean | {
        "PATH": path,
        "PYTHONPATH": str(ROOT),  # the actors may be those of a test
        "RAY_ADDRESS": address,
        **TOKEN,
    }


def _start(address: str, config: Path) -> subprocess.Popen[bytes]:
    command = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=0",
        f"--port={address.rpartition(':')[2]}",
        "--include-dashboard=false", f"--temp-dir={config.parent}",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}",
        f"--autoscaling-config={config}",
    ]  # fmt: skip
    variables = environment(address) | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # the default of `ray up` and KubeRay
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    del variables["RAY_ADDRESS"]
    with (config.parent / "head.log").open("w") as log:
        return subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, start_new_session=True
        )


def _until_started(cluster: AutoscalingCluster) -> None:
    log = cluster.folder / "head.log"
    while "Ray runtime started" not in log.read_text():
        with suppress(subprocess.TimeoutExpired):  # the pause between two looks
            cluster.head.wait(timeout=0.2)
            raise RuntimeError(f"the head node ended: {log.read_text()[-3000:]}")


def _end(cluster: AutoscalingCluster) -> None:
    """SIGKILL the head's group and all its descendants, which Ray may move to other groups."""
    processes = [psutil.Process(cluster.head.pid)]
    processes += processes[0].children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(cluster.head.pid, signal.SIGKILL)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.head.wait()
