"""The deployments without Ray: batches, searches, statistics, and a start that is refused."""

import asyncio
import dataclasses
import logging
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ampere.config.serve import ServeSettings
from ampere.records import Domain
from ampere.retrieval.engine import FaissEngine
from ampere.retrieval.filters import MAX_CHARACTERS
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer
from ampere.retrieval.writer import TableWriter
from ampere.store.keys import add_key
from ampere.store.moments import TranscriptCache
from ampere.store.workspace import Workspace
from serve import run
from serve.app import replicas, reserved_resources
from serve.embedder import EmbedCall, EmbedderDeployment, EmbedItem, Refused
from serve.engine_apps import EngineApps
from serve.index_stats import engine_stats
from serve.run import check_port, start
from serve.schemas import SearchBody
from serve.served_index import SearchCall, ServedIndex
from serve.weights import UnknownWeights
from tests.helpers.search_tables import SearchTable, row, unit_vectors


@pytest.fixture
def embedder() -> Any:
    """The embedding deployment with a stub model that fails on the text `bad`."""

    def embed(frames: list[list[bytes]], texts: list[str], domains: list[object]) -> np.ndarray:
        if "bad" in texts:
            raise TypeError("/srv/no/text")
        if "words" in texts:
            raise ValueError("this model cannot embed words alone")
        return np.full((len(frames), 2), len(frames), np.float32)

    models = {"m@1": SimpleNamespace(embed=embed)}
    stub = object.__new__(EmbedderDeployment.func_or_class)
    stub.models = SimpleNamespace(
        get=lambda name: models.get(name, UnknownWeights(name, tuple(models)))
    )
    return stub


def call(*texts: str, name: str = "m@1") -> EmbedCall:
    return EmbedCall(name, tuple(EmbedItem([b"jpeg"], text, Domain.PAGE) for text in texts))


def test_failed_query_does_not_affect_the_others(
    embedder: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.embedder.logger", logging.getLogger("embedder"))
    calls = [call("a", "b"), call("bad"), call("words"), call("c", name="m@2"), call("d")]
    first, failed, refused, unknown, last = embedder._embed(calls)
    assert first.tolist() == [[2, 2], [2, 2]] and last.tolist() == [[1, 1]]
    # Without the message, which may have a path of the server.
    assert failed == Refused("TypeError on the server; see its log", 500)
    assert refused == Refused("this model cannot embed words alone")
    assert unknown == UnknownWeights("m@2", ("m@1",))
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors == ["/srv/no/text"]  # errors of the server alone are logged
    together = embedder._embed([call("a"), call("b", "c")])
    assert [vectors.tolist() for vectors in together] == [[[3, 3]], [[3, 3], [3, 3]]]  # one batch


@pytest.fixture
def searcher(tmp_path: Path) -> Any:
    """The index of a table of 40 rows in three shards."""
    rows = [
        row(number, vector, domain=str(domain), text="红色跑鞋" if number == 3 else "")
        for number, (vector, domain) in enumerate(
            zip(unit_vectors(40, seed=1), [Domain.PAGE, Domain.LIVE] * 20, strict=True)
        )
    ]
    table = SearchTable(tmp_path, rows)
    table.build(type="flat", shards=3)
    engine = FaissEngine(table.searcher(), TableWriter(table.uri))
    stub = object.__new__(ServedIndex)
    none = TranscriptCache(None)
    stub._transcripts = SimpleNamespace(get=lambda _: asyncio.sleep(0, none))
    stub.engines = SimpleNamespace(
        get=lambda name: engine if name == "m@1" else UnknownWeights(name, ("m@1",))
    )
    yield stub
    engine.close()


def search(deployment: Any, name: str = "m@1", **fields: Any) -> Any:
    vector = np.asarray(unit_vectors(1, seed=2)[0], np.float32)
    request = SearchRequest(**fields)
    return asyncio.run(deployment.search(SearchCall(name, request, {"words": vector})))


def test_searcher_of_all_shards_ranks_words_as_one_index(searcher: Any) -> None:
    by_words = search(searcher, text="红色 跑鞋", mode="lexical", k=5)
    assert [hit.sample_id for hit in by_words.hits[Domain.LIVE]] == ["s0003"]
    by_both = search(searcher, text="红色 跑鞋", k=5)
    ids = [hit.sample_id for hit in by_both.hits[Domain.LIVE]]
    assert ids[0] == "s0003" and len(set(ids)) == 5


def test_what_does_not_fit_is_refused_and_unknown_weights_are_named(searcher: Any) -> None:
    assert search(searcher, sample_id="none") == Refused("no sample 'none' in the search table")
    refused = search(searcher, text="a", filter="colour = 'red'")
    assert isinstance(refused, Refused) and "colour" in refused.detail
    assert search(searcher, "m@2", text="a") == UnknownWeights("m@2", ("m@1",))


def test_search_that_reads_nothing_uses_no_thread(
    searcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    async def to_thread(work: Any, *arguments: Any) -> Any:
        threads.append(work.__name__)
        return work(*arguments)

    monkeypatch.setattr("serve.served_index.asyncio.to_thread", to_thread)
    vector = tuple(unit_vectors(1, seed=2)[0].tolist())

    def of(**fields: Any) -> list[str]:
        threads.clear()
        answer = search(searcher, vector=vector, **fields)
        assert isinstance(answer, SearchAnswer), answer
        return list(threads)

    assert of(k=3) == ["answer"]  # the columns of the hits are read from the table
    assert of(k=3) == []
    assert of(k=3, explain=True) == ["answer"]  # the vectors of the hits
    assert of(k=3, filter="price >= 0")[:1] == ["ranked"]
    assert of(k=3, group_by="product_id")[:1] == ["ranked"]
    assert of(k=3, facets=("domain",))[:1] == ["ranked"]
    monkeypatch.setattr("ampere.retrieval.search.FEW_COMPARED", 39)  # of 40 rows
    assert of(k=3) == ["ranked"]


def test_facets_are_counted_without_a_search(searcher: Any) -> None:
    request = SearchRequest(vector=(1.0,), facets=("domain",))
    counts, version = asyncio.run(searcher.facets(SearchCall("m@1", request, {})))
    assert counts == {"domain": {"live": 20, "page": 20}} and version >= 1


def test_statistics_name_rows_columns_and_age(searcher: Any) -> None:
    stats = engine_stats(searcher.engines.get("m@1"))
    assert stats["rows"] == {"page": 20, "short": 0, "live": 20} and stats["changes"] == 0
    assert 0 <= stats["newest_change_age_s"] < 300
    assert stats["columns"]["text"] == "string" and "vector" not in stats["columns"]
    assert stats["hits_in_memory"] is False  # this searcher holds none


def test_port_in_use_is_rejected_even_if_it_could_be_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"cannot bind 127.0.0.1:{port} .*--serve.port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_address_that_others_reach_needs_a_key(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.run.prepare_local_ray", lambda: None)  # it sets this environment
    error = "serve.host is 0.0.0.0, which other machines reach, and .* has no API keys. Run `ampere"
    with pytest.raises(ValueError, match=error):
        start(workspace, ServeSettings(host="0.0.0.0"))
    add_key(workspace, "read")
    with pytest.raises(FileNotFoundError, match="model 'ampere' not found"):  # the next check
        start(workspace, ServeSettings(host="0.0.0.0"))


def test_running_endpoint_of_the_cluster_is_not_replaced(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.run.connect", lambda *_: None)
    monkeypatch.setattr("serve.run.prepare_local_ray", lambda: None)
    monkeypatch.setattr("serve.run.proxy_runs", lambda: True)
    monkeypatch.setattr("serve.app.bind_app", lambda *_, **__: None)
    monkeypatch.setattr(
        "ray.serve.status", lambda: SimpleNamespace(applications={"ampere": "RUNNING"}, proxies={})
    )
    with pytest.raises(
        RuntimeError,
        match="already serves an application 'ampere', which a second start would replace. Stop",
    ):
        start(workspace, ServeSettings())


@pytest.mark.parametrize(("gateways", "concurrent", "batch", "most", "target"), [
    (1, 16, 16, 2, 8),
    (4, 16, 16, 2, 16),  # no more than a batch: further ones wait for the next
    (1, 4, 16, 3, 1),
    (1, 2, 16, 4, 1),
])  # fmt: skip
def test_admitted_queries_suffice_for_all_replicas(
    gateways: int, concurrent: int, batch: int, most: int, target: int
) -> None:
    settings = ServeSettings(gateway_replicas=gateways, max_concurrent=concurrent, max_batch=batch)
    scaling = replicas(1, most, settings)["autoscaling_config"]
    assert scaling.target_ongoing_requests == target
    assert (scaling.min_replicas, scaling.max_replicas) == (1, most)
    # Serve adds replicas up to (queries in progress / target).
    assert gateways * concurrent / target >= min(most, gateways * concurrent)


def test_gateways_reserve_a_share_for_the_indexes_that_they_hold() -> None:
    engines = EngineApps()
    both = ServeSettings(also=("other",), gateway_replicas=2, cpus=0.5)
    assert reserved_resources(both, engines).cpus == pytest.approx(2 * 0.5 + 2 * (0.5 + 2 * 0.2))
    apart = dataclasses.replace(both, searcher_replicas=3)
    cpus = reserved_resources(apart, engines).cpus
    assert cpus == pytest.approx(2 * 0.5 + 2 * 0.5 + 2 * 3 * 0.2)


@pytest.mark.parametrize(("least", "most", "message"), [
    (-1, 0, "serve.searcher_replicas is -1; it must not be negative"),
    (0, 2, "serve.searcher_replicas is 0: the gateways search"),
    (3, 2, "expected 0 or at least serve.searcher_replicas, which is 3"),
])  # fmt: skip
def test_wrong_number_of_searchers_is_refused(least: int, most: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServeSettings(searcher_replicas=least, max_searcher_replicas=most)


def test_replicas_are_fixed_without_a_larger_number() -> None:
    assert replicas(2, 0, ServeSettings()) == {"num_replicas": 2}


@pytest.mark.parametrize("wrong", ["shop.example", "https://shop.example/", "ftp://shop.example"])
def test_origins_that_no_browser_sends_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="serve.origins has .*; expected . or a scheme and a host"):
        ServeSettings(origins=("https://shop.example:8443", "*", wrong))


def test_longest_filter_is_that_of_the_document() -> None:
    longest = "a" * MAX_CHARACTERS
    assert SearchBody(text="x", filter=longest).filter == longest
    with pytest.raises(ValidationError):
        SearchBody(text="x", filter=longest + "a")


def test_endpoint_whose_ray_is_gone_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    monkeypatch.setattr(run, "STOP_S", 0.05)
    monkeypatch.setattr(run, "stop", gone.wait)
    lost = "requests in progress may have got no answer (TimeoutError of Ray)"
    assert run.stop_in_time() == lost
    gone.set()
    assert run.stop_in_time() == "requests in progress were answered"
    monkeypatch.setattr(run, "stop", lambda: False)
    assert run.stop_in_time() == "some requests in progress got no answer within 15 s"
