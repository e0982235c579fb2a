"""Two replicas of each deployment: killed processes, and new weights, under load."""

import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow.compute as pc
import pytest

from ampere.cli import main
from ampere.client import ApiError, Client, Retries, Unreachable
from ampere.models.model_folder import embedding_name
from ampere.records import SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving, wait_until_ready
from tests.helpers.processes import command_line

pytestmark = pytest.mark.timeout(1500)
THREADS = 6
SOON = 2000  # searches at most until new weights answer
PARTS = {
    "gateway": "ServeReplica:ampere:Gateway",
    "embedder": "ServeReplica:ampere:embedder",
    "searcher": "ServeReplica:ampere:searcher",
    "isolated process": "ampere.media.isolated",
}


class Replicated(NamedTuple):
    """An endpoint, and the parts of it that may be killed; the last one holds the index."""

    endpoint: Endpoint
    victims: tuple[str, ...]


@pytest.fixture(
    scope="module", params=["searchers", pytest.param("gateways", marks=pytest.mark.nightly)]
)
def replicated(
    request: pytest.FixtureRequest, demo: DemoRun, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicated]:
    """An endpoint with two replicas of each deployment; searchers or the gateways search."""
    folder = tmp_path_factory.mktemp("replicated")
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", folder / "workspace"))
    replicas = ["--serve.gateway-replicas", "2", "--serve.embedder-replicas", "2"]
    flags = [*replicas, "--serve.cpus", "0.25"]
    victims = ("isolated process", "embedder", "gateway")
    if request.param == "searchers":
        flags += ["--serve.searcher-replicas", "2"]
        victims += ("searcher",)
    with serving(workspace, folder / "serve.log", flags) as endpoint:
        yield Replicated(endpoint, victims)


def parts(endpoint: Endpoint, name: str) -> list[psutil.Process]:
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    return [child for child in children if any(PARTS[name] in part for part in command_line(child))]


class Load:
    """Searches by vector and by picture, and their results.

    Attributes:
        failed: errors of the client, which retries.
        times: seconds that each search took, and its number.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.client = Client(endpoint.url)
        self.picture = endpoint.picture.read_bytes()
        self.done, self.failed = 0, list[str]()
        self.times: list[tuple[float, int]] = []
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
        self.times.append((time.monotonic() - start, number))
        self.done += 1

    def run(self, requests: int) -> None:
        with self.client, ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self.one, range(requests)))


@pytest.mark.parametrize("requests", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_killed_processes_fail_at_most_one_request_in_a_thousand(
    replicated: Replicated, requests: int
) -> None:
    endpoint, victims = replicated
    load, rng = Load(endpoint), random.Random(0)
    thread = threading.Thread(target=load.run, args=(requests,))
    thread.start()
    victims *= 1 if requests == 1000 else 2
    for number, victim in enumerate(victims):
        at = (number + 1) * requests // (len(victims) + 1)
        alive: list[psutil.Process] = []
        while thread.is_alive() and (load.done < at or not alive):
            thread.join(timeout=0.05)
            alive = parts(endpoint, victim)
        assert alive, f"no {victim} is running; {load.done} requests done: {load.failed[:5]}"
        if victim == victims[-1]:  # while it changes to another base
            base = ["index", "--workspace", endpoint.workspace.uri, "--index.type", "flat"]
            assert main([*base, "--index.target-recall", f"0.9{number}"]) == 0
        rng.choice(alive).kill()
    thread.join()
    slowest = [f"{took:.1f} s (number {number})" for took, number in sorted(load.times)[-5:]]
    print(f"{len(load.failed)} of {requests} failed; the slowest took {', '.join(slowest)}")
    print(*load.failed, sep="\n")
    assert load.done == requests and len(load.failed) <= requests // 1000, load.failed[:20]
    wait_until_ready(endpoint)  # although the last one that was killed may still start


def replace_weights(workspace: Workspace) -> str:
    """Give the model `ampere` the weights of `ampere-raw`, with their index; returns their name."""
    folder = Path(workspace.uri)
    shutil.rmtree(folder / "models" / "ampere")
    shutil.copytree(folder / "models" / "ampere-raw", folder / "models" / "ampere")
    name = embedding_name(folder / "models" / "ampere")
    (other,) = folder.glob(f"embeddings/ampere-raw@{name.partition('@')[2]}.lance")
    shutil.copytree(other, folder / f"embeddings/{name}.lance")
    assert main(["index", "--workspace", workspace.uri]) == 0
    return name


def test_new_weights_are_taken_over_without_a_failed_or_mixed_answer(
    replicated: Replicated,
) -> None:
    """An answer of one network's query and the other's index would equal neither's own."""
    endpoint = replicated.endpoint
    pages = endpoint.workspace.table(SAMPLES).read(["media_uris"], pc.field("domain") == "page")
    pictures = [Path(uris[0]).read_bytes() for uris in pages["media_uris"].to_pylist()]
    answers: dict[str, dict[int, set[tuple[str, ...]]]] = {}
    old, goal = "", threading.Event()

    def search(client: Client, number: int) -> str:
        answer = client.search(file=pictures[number] + os.urandom(8), k=5)
        found = tuple(hit.sample_id for hits in answer.results.values() for hit in hits)
        answers.setdefault(answer.model, {}).setdefault(number, set()).add(found)
        return answer.model

    def load(client: Client) -> int:
        count = 0
        while not goal.is_set():
            search(client, count % len(pictures))
            count += 1
        return count

    with Client(endpoint.url) as client, ThreadPoolExecutor(THREADS) as pool:
        old = search(client, 0)
        running = [pool.submit(load, client) for _ in range(THREADS)]
        new = replace_weights(endpoint.workspace)
        for _ in range(SOON):
            if search(client, 0) == new:
                break
        for number in range(len(pictures)):
            search(client, number)
        goal.set()
        counts = [task.result() for task in running]  # raises if a request failed
        assert search(client, 0) == new
    assert sum(counts) > len(pictures) and answers.keys() == {old, new}
    for of_model in answers.values():
        assert all(len(found) == 1 for found in of_model.values())
    both = answers[old].keys() & answers[new].keys()
    assert sum(answers[old][number] != answers[new][number] for number in both) > len(both) // 2


class Upload:
    """A picture that is being uploaded: the endpoint has taken the request, and waits for the rest.

    Args:
        endpoint: that searches by it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        picture = endpoint.picture.read_bytes()
        name = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p.jpg"\r\n\r\n'
        self.body = name + picture + b"\r\n--b--\r\n"
        parts = urlsplit(endpoint.url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self.socket.sendall(
            f"POST /v1/search HTTP/1.1\r\nHost: {parts.netloc}\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
        )
        assert self.socket.recv(1000).startswith(b"HTTP/1.1 100 ")
        self.socket.sendall(self.body[:1000])

    def finish(self) -> bytes:
        """Send the rest; returns the first line of the answer."""
        with self.socket:
            self.socket.sendall(self.body[1000:])
            return self.socket.recv(1000).partition(b"\r\n")[0]


def test_requests_in_progress_are_answered_at_the_end(replicated: Replicated) -> None:
    """The last test of this endpoint: it stops."""
    endpoint = replicated.endpoint
    uploads = [Upload(endpoint) for _ in range(4)]  # HAProxy gives both gateways some of them
    endpoint.process.send_signal(signal.SIGINT)
    with Client(endpoint.url, retries=Retries(total_s=0)) as client:
        for _ in range(SOON):
            try:
                client.search(vector=[1.0] * 128)
            except (ApiError, Unreachable):  # further requests are refused
                break
    assert [upload.finish() for upload in uploads] == [b"HTTP/1.1 200 OK"] * 4
    assert endpoint.process.wait(timeout=60) == 130
    assert endpoint.log.read_text().endswith("requests in progress were answered\n")
