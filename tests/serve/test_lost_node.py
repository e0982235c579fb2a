"""An endpoint on several nodes: one of them is lost or slow under load; the head is lost."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from ampere.client import ApiError, Client, Unreachable
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving
from tests.helpers.nodes import RunningCluster, processes_of, running_cluster, slowed

pytestmark = [pytest.mark.timeout(1500), pytest.mark.nightly]
REQUESTS, THREADS = 600, 4
END_S = 120
SMALL = ["--serve.cpus", "0.25"]
FLAGS = [
    *("--serve.gateway-replicas", "2", "--serve.embedder-replicas", "2"),
    *("--serve.searcher-replicas", "2", *SMALL),
]


@pytest.fixture
def workspace(demo: DemoRun, tmp_path: Path) -> Workspace:
    """A copy of the demo's."""
    return Workspace.open(shutil.copytree(demo.folder / "workspace", tmp_path / "copy"))


def search(client: Client, number: int) -> str:
    """An error, or an empty string."""
    vector = np.random.default_rng(number).standard_normal(128).tolist()
    try:
        answer = client.search(vector=vector)
    except (ApiError, Unreachable) as error:
        return f"{number}: {type(error).__name__}: {error}"
    return "" if all(len(hits) == 10 for hits in answer.results.values()) else f"{number}: short"


@contextmanager
def served_on_two_nodes(
    workspace: Workspace, log: Path
) -> Iterator[tuple[RunningCluster, Endpoint, Client]]:
    """An endpoint with two replicas of each part, and a client."""
    with (
        running_cluster(workers=2, cpus=2) as cluster,
        serving(workspace, log, FLAGS) as endpoint,
        Client(endpoint.url) as client,
    ):
        yield cluster, endpoint, client


def test_lost_node_fails_no_request(workspace: Workspace, tmp_path: Path) -> None:
    """The client repeats requests that were lost with a replica."""
    errors: list[str] = []
    third = threading.Semaphore(0)

    def one(number: int) -> None:
        errors.append(search(client, number))
        third.release()

    with (
        served_on_two_nodes(workspace, tmp_path / "log") as (cluster, endpoint, client),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        lost = next(node for node in cluster.workers if processes_of(node, "searcher"))
        running = [pool.submit(one, number) for number in range(REQUESTS)]
        for _ in range(REQUESTS // 3):
            third.acquire()
        cluster.kill(lost)
        for request in running:
            request.result()
        assert httpx.get(f"{endpoint.url}/readyz").status_code == 200
    assert len(errors) == REQUESTS and not any(errors), [error for error in errors if error][:20]


def test_slow_node_fails_no_request(workspace: Workspace, tmp_path: Path) -> None:
    """One replica of each part runs for a tenth of the time."""
    with (
        served_on_two_nodes(workspace, tmp_path / "log") as (cluster, _, client),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        slow = next(node for node in cluster.workers if processes_of(node, "searcher"))
        with slowed(slow):
            errors = list(pool.map(lambda number: search(client, number), range(REQUESTS // 3)))
    assert not any(errors), [error for error in errors if error][:20]


def test_endpoint_ends_with_its_head_and_a_new_one_answers(
    workspace: Workspace, tmp_path: Path
) -> None:
    with (
        running_cluster(workers=1, cpus=2) as cluster,
        serving(workspace, tmp_path / "log", SMALL) as endpoint,
    ):
        answer(endpoint)
        cluster.kill(cluster.head)
        assert endpoint.process.wait(timeout=END_S) != 0
    with (
        running_cluster(workers=1, cpus=2),
        serving(workspace, tmp_path / "log", SMALL) as endpoint,
    ):
        answer(endpoint)


def answer(endpoint: Endpoint) -> None:
    with Client(endpoint.url) as client:
        assert not search(client, 0)
