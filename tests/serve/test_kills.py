"""Ten thousand requests while replicas and isolated processes are killed and the index changes."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from ampere.cli import main
from ampere.client import ApiError, Client, Unreachable
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving
from tests.helpers.processes import command_line

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1500)]
REQUESTS, THREADS = 10_000, 6
PARTS = {
    "gateway": "ServeReplica:ampere:Gateway",
    "embedder": "ServeReplica:ampere:embedder",
    "searcher": "ServeReplica:ampere:searcher",
    "isolated process": "ampere.media.isolated",
}


@pytest.fixture(scope="module")
def replicated(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint with two replicas of each deployment."""
    folder = tmp_path_factory.mktemp("replicated")
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", folder / "workspace"))
    replicas = ["--serve.gateway-replicas", "2", "--serve.embedder-replicas", "2"]
    flags = [*replicas, "--serve.searcher-replicas", "2", "--serve.cpus", "0.25"]
    with serving(workspace, folder / "serve.log", flags) as endpoint:
        yield endpoint


def parts(endpoint: Endpoint, name: str) -> list[psutil.Process]:
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    return [child for child in children if any(PARTS[name] in part for part in command_line(child))]


class Load:
    """Searches of three kinds, and what became of them.

    Attributes:
        failed: errors of the client, which retries.
        slowest: longest time of a search, in seconds.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.client = Client(endpoint.url)
        self.picture = endpoint.picture.read_bytes()
        self.done, self.failed, self.slowest = 0, list[str](), 0.0
        self.models: set[str] = set()

    def one(self, number: int) -> None:
        rng = np.random.default_rng(number)
        start = time.monotonic()
        try:
            if number % 20 == 0:  # with bytes that no cache knows
                answer = self.client.search(file=self.picture + rng.bytes(8))
            else:
                answer = self.client.search(vector=rng.standard_normal(128).tolist())
            assert all(len(hits) == 10 for hits in answer.results.values())
            self.models.add(answer.model)
        except (ApiError, Unreachable, AssertionError) as error:
            self.failed.append(f"{number}: {type(error).__name__}: {error}")
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.done += 1

    def run(self) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self.one, range(REQUESTS)))


def test_killed_processes_fail_at_most_one_request_in_a_thousand(replicated: Endpoint) -> None:
    load, rng = Load(replicated), random.Random(0)
    thread = threading.Thread(target=load.run)
    thread.start()
    for number, victim in enumerate(["gateway", "embedder", "searcher", "isolated process"] * 2):
        at = (number + 1) * REQUESTS // 10
        while load.done < at and thread.is_alive():
            thread.join(timeout=0.05)
        alive = parts(replicated, victim)
        assert alive, f"no {victim} is running"
        if victim == "searcher":  # while it changes to another base
            base = ["index", "--workspace", replicated.workspace.uri, "--index.type", "flat"]
            assert main([*base, "--index.target-recall", f"0.9{number}"]) == 0
        rng.choice(alive).kill()
    thread.join()
    print(f"{len(load.failed)} of {REQUESTS} failed; the slowest took {load.slowest:.1f} s")
    assert load.done == REQUESTS and len(load.failed) <= REQUESTS // 1000, load.failed[:20]
    assert httpx.get(f"{replicated.url}/readyz").status_code == 200
