"""A rolling redeployment, as by `serve deploy` with another revision, fails no request."""

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow.compute as pc
import pytest

from ampere.client import Client
from ampere.config.serve import ServeSettings
from ampere.records import SAMPLES
from serve.app import SearchArgs, build_app
from serve.run import APPLICATION, start, stop
from tests.helpers.demo import DemoRun
from tests.helpers.processes import free_port

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
THREADS = 4
REPLICAS = {"gateway_replicas": 2, "embedder_replicas": 2, "searcher_replicas": 2, "cpus": 0.2}
LOOKS = 40  # at the metrics of a replica, until each has answered


def gateways(url: str) -> set[str]:
    """Names of the gateway replicas."""
    names = set()
    for _ in range(LOOKS):
        names |= set(re.findall(r'replica="(\w+)"', httpx.get(f"{url}/metrics").text))
    return names


def test_redeployment_fails_no_request(demo: DemoRun, local_ray: None) -> None:
    from ray import serve

    workspace = demo.workspace
    url = start(workspace, ServeSettings(port=free_port(), **REPLICAS))
    done = threading.Event()
    pages = workspace.table(SAMPLES).read(["media_uris"], pc.field("domain") == "page")
    picture = Path(pages["media_uris"][0].as_py()[0]).read_bytes()

    def load(client: Client) -> int:
        count = 0
        while not done.is_set():
            answer = client.search(file=picture + os.urandom(8), k=2)
            assert len(answer.results["page"]) == 2
            count += 1
        return count

    try:
        before = gateways(url)
        args = {"workspace": workspace.uri, "requires_keys": False, "revision": "2"} | REPLICAS
        with Client(url) as client, ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(load, client) for _ in range(THREADS)]
            serve.run(build_app(SearchArgs(**args)), name=APPLICATION, route_prefix="/")
            done.set()
            counts = [task.result() for task in running]  # raises if a request failed
        assert len(before) == 2 and not before & gateways(url)  # all replicas are new
        assert min(counts) > 0
        print(f"{sum(counts)} requests during the redeployment, none failed")
    finally:
        done.set()
        stop()
