"""An endpoint whose workspace lies on an S3 server that goes away for half a minute, or is slow."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import httpx
import numpy as np
import pytest

from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving
from tests.helpers.faulty_proxy import FaultyProxy, faulty_proxy
from tests.helpers.s3 import BUCKET, s3_server, use_endpoint

pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]
OUTAGE_S = 30.0
AGAIN_WITHIN_S = 60.0  # as clients wait that send again after a 503
LIMITS = ["--serve.request-timeout-s", "10", "--serve.engine-timeout-s", "5"]
LIMIT_S = 20.0  # of one request: as above, and a busy machine
RESULTS = 10


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    """The store of the endpoint, without faults so far."""
    with (
        pytest.MonkeyPatch.context() as environment,
        s3_server() as server,
        faulty_proxy(server) as proxy,
    ):
        use_endpoint(proxy.url, environment)
        yield proxy


@pytest.fixture
def endpoint(proxy: FaultyProxy, demo: DemoRun, tmp_path: Path) -> Iterator[Endpoint]:
    """Of the demo's workspace, copied to the store."""
    client, folder = boto3.client("s3"), demo.folder / "workspace"
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [f"copy/{file.relative_to(folder).as_posix()}" for file in files]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file, name: client.upload_file(str(file), BUCKET, name), files, names))
    workspace = Workspace.open(f"s3://{BUCKET}/copy")
    with serving(workspace, tmp_path / "log", LIMITS) as endpoint:
        yield endpoint


def search(endpoint: Endpoint, number: int) -> httpx.Response:
    """The answer to a search that was not sent before."""
    vector = np.random.default_rng(number).standard_normal(128).tolist()
    return httpx.post(f"{endpoint.url}/v1/search", json={"vector": vector}, timeout=LIMIT_S)


def test_endpoint_answers_during_an_outage_and_after(
    proxy: FaultyProxy, endpoint: Endpoint
) -> None:
    """Each request gets its results or a 503 that says to send it again."""
    assert search(endpoint, 0).status_code == 200
    proxy.leave()
    end, number, statuses = time.monotonic() + OUTAGE_S, 0, []
    while time.monotonic() < end:
        number += 1
        answer = search(endpoint, number)
        statuses.append(answer.status_code)
        assert answer.status_code == 200 or "retry-after" in answer.headers, answer.text
    assert set(statuses) <= {200, 503} and 503 in statuses
    proxy.come_back()
    print(f"during the outage: {statuses.count(200)} of {len(statuses)} searches got results")
    end = time.monotonic() + AGAIN_WITHIN_S
    while (answer := search(endpoint, number)).status_code != 200:
        assert time.monotonic() < end, answer.text
        number += 1
    assert all(len(hits) == RESULTS for hits in answer.json()["results"].values())


@pytest.mark.parametrize("fault", [{"delay_s": 0.5}, {"busy_share": 0.3}], ids=["slow", "busy"])
def test_endpoint_on_a_slow_or_busy_store(
    proxy: FaultyProxy, endpoint: Endpoint, fault: dict[str, float]
) -> None:
    vars(proxy).update(fault)
    before = proxy.requests
    for number in range(10):
        answer = search(endpoint, number)
        assert answer.status_code == 200, answer.text
        assert all(len(hits) == RESULTS for hits in answer.json()["results"].values())
    assert proxy.requests > before
