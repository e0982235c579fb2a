"""Replicas of the embedder that follow the load."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ampere.client import ApiError, Client
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving
from tests.helpers.processes import command_line

EMBEDDER = "ServeReplica:ampere:embedder"
CLIENTS = 12
# Few queries at once for each replica, so that one model is not fast enough for all clients.
FLAGS = [
    "--serve.max-embedder-replicas", "2", "--serve.cpus", "0.5", "--serve.max-batch", "2",
    "--serve.max-per-client", "16", "--serve.cached-queries", "0",
]  # fmt: skip
GROWN_S = 300.0  # Serve waits for 30 s of load, and the replica loads the model
SHRUNK_S = 900.0  # Serve waits for 600 s


def replicas(endpoint: Endpoint) -> int:
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    return sum(any(EMBEDDER in part for part in command_line(child)) for child in children)


def seconds_until(endpoint: Endpoint, happened: Callable[[], bool], limit: float) -> float:
    """Seconds until a condition is true; infinite if it is not in that time."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > limit:
            return float("inf")
        with suppress(subprocess.TimeoutExpired):  # the pause between two looks
            endpoint.process.wait(timeout=0.5)
            pytest.fail(f"the endpoint ended by itself: {endpoint.log.read_text()[-3000:]}")
    return time.monotonic() - start


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_embedder_grows_under_load_and_shrinks_after(demo: DemoRun, tmp_path: Path) -> None:
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", tmp_path / "workspace"))
    over, failed = threading.Event(), list[str]()

    def search(number: int) -> None:
        with Client(endpoint.url) as client:
            count = 0
            while not over.is_set():
                count += 1
                try:
                    client.search(text=f"kettle {number} {count}", mode="vector")
                except ApiError as error:
                    failed.append(str(error))

    with (
        serving(workspace, tmp_path / "log", FLAGS) as endpoint,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        assert replicas(endpoint) == 1
        try:
            pool.map(search, range(CLIENTS))
            grown = seconds_until(endpoint, lambda: replicas(endpoint) == 2, GROWN_S)
        finally:
            over.set()
        assert grown < GROWN_S
        shrunk = seconds_until(endpoint, lambda: replicas(endpoint) == 1, SHRUNK_S)
        assert shrunk < SHRUNK_S
    print(f"2 replicas after {grown:.0f} s of load, 1 again {shrunk:.0f} s after it; {failed[:3]}")
