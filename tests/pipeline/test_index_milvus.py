"""The index stage with Milvus: filling, the gate, the alias, rollback. Milvus is milvus-lite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ampere.cli import main
from ampere.config.index import IndexSettings
from ampere.models.model_folder import WEIGHTS_FILE, embedding_name
from ampere.pipeline import index_milvus
from ampere.pipeline.index import build_index
from ampere.pipeline.index_milvus import roll_back_collection
from ampere.records import Domain
from ampere.reports.search import search
from ampere.retrieval import milvus_collections as collections
from ampere.retrieval.milvus import MilvusEngine
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.store.embeddings import embedding_tables
from ampere.store.indexes import open_engine
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.engines import quick_milvus
from tests.helpers.search_tables import unit_vectors
from tests.helpers.workspaces import embedding_model

pytest.importorskip("pymilvus", reason="the extra ampere[milvus] is not installed")
from milvus_lite.server_manager import server_manager_instance

VECTORS = unit_vectors(200, seed=1)
QUERY = VECTORS[0]
REQUEST = SearchRequest(vector=tuple(QUERY.tolist()), k=1000)


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "milvus.db")
    with quick_milvus():
        yield path
    server_manager_instance.release_server(path)


@pytest.fixture
def embedded(workspace: Workspace) -> Workspace:
    """A model `m` with embeddings of forty pages and forty shorts."""
    embedding_model(workspace)
    put(workspace, range(80))
    return workspace


def model_name(workspace: Workspace) -> str:
    return embedding_name(model_folder(workspace, "m"))


def put(workspace: Workspace, numbers: range, **columns: Any) -> None:
    """Write embeddings; even numbers are pages, odd ones shorts."""
    rows = [
        {
            "sample_id": f"s{number:03}",
            "domain": str((Domain.PAGE, Domain.SHORT)[number % 2]),
            "split": "test" if number < 60 else "train",
            "text": f"茶 {number}",
            "vector": VECTORS[number],
            "fingerprint": f"{number:016x}",
        }
        | columns
        for number in numbers
    ]
    write_embeddings(workspace, model_name(workspace), rows)


def settings(uri: str, **fields: Any) -> IndexSettings:
    return IndexSettings(model="m", engine="milvus", uri=uri, **fields)


def found(workspace: Workspace, uri: str) -> set[str]:
    engine = open_engine(workspace, model_name(workspace), "milvus", uri)
    hits = engine.search(REQUEST, QueryVectors(QUERY)).hits
    engine.close()
    return {hit.sample_id for of_domain in hits.values() for hit in of_domain}


def stored(workspace: Workspace, uri: str) -> list[int]:
    return collections.versions(
        collections.connect(uri), collections.alias_of(model_name(workspace))
    )


def test_collection_is_filled_once_and_again_after_a_change(embedded: Workspace, uri: str) -> None:
    report = str(build_index(embedded, settings(uri)))
    assert "80 rows done" in report and "recall@10 vs exact search: page 1.0000, short 1" in report
    server_manager_instance.release_server(uri)  # as another process would open it again
    assert "0 rows done, 80 were done before" in str(build_index(embedded, settings(uri)))
    assert len(found(embedded, uri)) == 80 and len(stored(embedded, uri)) == 1
    put(embedded, range(80, 83))
    assert "83 rows done" in str(build_index(embedded, settings(uri)))
    put(embedded, range(1), text="咖啡")  # a change of one row, and not of their number
    assert "83 rows done" in str(build_index(embedded, settings(uri)))
    assert "0 rows done, 83 were done before" in str(build_index(embedded, settings(uri)))
    assert len(found(embedded, uri)) == 83


def test_collections_hold_their_split_and_index_type(embedded: Workspace, uri: str) -> None:
    assert "60 rows done" in str(build_index(embedded, settings(uri, split="test")))
    assert found(embedded, uri) == {f"s{number:03}" for number in range(60)}
    report = str(build_index(embedded, settings(uri, split="test", type="hnsw")))
    assert "60 rows done" in report and "index: HNSW: recall@10" in report
    assert found(embedded, uri) == {f"s{number:03}" for number in range(60)}


def test_old_collections_are_deleted_and_rollback_searches_the_one_before(
    embedded: Workspace, uri: str
) -> None:
    with pytest.raises(FileNotFoundError, match="has no published collection ampere_m_"):
        roll_back_collection(embedded, settings(uri))
    for end in (81, 82, 83):
        put(embedded, range(end))
        build_index(embedded, settings(uri, keep=2))
    second, third = stored(embedded, uri)
    name = roll_back_collection(embedded, settings(uri))
    assert name.endswith(f"_v{second:06}") and len(found(embedded, uri)) == 82
    with pytest.raises(FileNotFoundError, match=f"has no collection before {name}"):
        roll_back_collection(embedded, settings(uri))
    assert "83 rows done" in str(build_index(embedded, settings(uri)))
    assert third not in stored(embedded, uri) and len(found(embedded, uri)) == 83


def test_failed_gate_keeps_the_collection_before(
    embedded: Workspace, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fragment is lost; then vectors are wrong."""
    build_index(embedded, settings(uri))
    put(embedded, range(80, 90))
    write = collections.write
    with monkeypatch.context() as patched:
        patched.setattr(collections, "write", lambda c, n, rows: write(c, n, rows.slice(1)))
        with pytest.raises(RuntimeError, match="failed the gate .*Milvus has 8. rows of 90"):
            build_index(embedded, settings(uri))
    exact = index_milvus.exact_similarities
    with monkeypatch.context() as patched:
        patched.setattr(
            index_milvus,
            "exact_similarities",
            lambda *of: {domain: best + 0.1 for domain, best in exact(*of).items()},
        )
        with pytest.raises(RuntimeError, match="at least index.target_recall=0.99"):
            build_index(embedded, settings(uri))
    assert len(found(embedded, uri)) == 80 and len(stored(embedded, uri)) == 1


def test_collection_of_a_killed_run_is_replaced(
    embedded: Workspace, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, settings(uri))
    put(embedded, range(80, 90))
    with monkeypatch.context() as patched:
        patched.setattr(collections, "add_indexes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_index(embedded, settings(uri))
    assert len(found(embedded, uri)) == 80 and len(stored(embedded, uri)) == 2
    build_index(embedded, settings(uri))
    assert len(found(embedded, uri)) == 90 and len(stored(embedded, uri)) == 2


def test_search_asks_the_engine_of_the_last_index(
    embedded: Workspace, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(embedded, range(80), text="热水袋")
    flags = ["index", "--workspace", str(embedded.uri), "--index.model", "m"]
    assert main([*flags, "--index.engine", "milvus", "--index.uri", uri]) == 0
    request = SearchRequest(text="热水袋", mode="lexical", k=2)
    assert {
        domain: [hit.sample_id for hit in hits]
        for domain, hits in search(embedded, "m", request).hits.items()
    } == {"page": ["s000", "s002"], "short": ["s001", "s003"], "live": []}
    with pytest.raises(FileNotFoundError, match="has no index of model weights"):
        search(embedded, "m", request, "faiss")
    assert main([*flags, "rollback", "--index.engine", "milvus", "--index.uri", uri]) == 2
    assert "has no collection before" in capsys.readouterr().err


def test_columns_that_milvus_cannot_have_are_refused(embedded: Workspace, uri: str) -> None:
    table = embeddings_of(embedded, model_name(embedded))
    table.add_columns([pa.field("preis €", pa.float64())])
    with pytest.raises(ValueError, match="Milvus cannot filter by the column preis €.*Rename"):
        build_index(embedded, settings(uri))
    assert stored(embedded, uri) == []


def test_unpublished_collection_and_closed_server_are_named(
    embedded: Workspace, uri: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no published collection x; run `ampere index --index.en"):
        MilvusEngine(uri, "x")
    missing = str(tmp_path / "missing" / "x.db")
    with pytest.raises(ConnectionError, match="cannot open Milvus at .*its folder must exist"):
        build_index(embedded, settings(missing))


def test_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r'run `pip install "ampere\[milvus\]"`'):
        collections.connect("x.db")


def test_server_is_filled_by_tasks(embedded: Workspace, tmp_path: Path, local_ray: None) -> None:
    """A server of milvus-lite; it takes one write at a time, and the table has one fragment."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "data"), "127.0.0.1", 0)
    uri = f"http://127.0.0.1:{port}"
    with quick_milvus():
        assert "80 rows done" in str(build_index(embedded, settings(uri)))
    assert len(found(embedded, uri)) == 80
    server.stop(grace=0)
    database.close()


def test_exact_similarities_are_those_of_all_rows(embedded: Workspace) -> None:
    name = model_name(embedded)
    from ampere.store.indexes import search_table

    best = index_milvus.exact_similarities(search_table(embedded, name), VECTORS[:5], "all")
    assert set(best) == {Domain.PAGE, Domain.SHORT}
    expected = -np.sort(-(VECTORS[:5] @ VECTORS[1:80:2].T), axis=1)[:, :10]
    assert best[Domain.SHORT] == pytest.approx(expected, abs=1e-6)


def test_what_is_left_of_weights_before_the_last_is_removed(embedded: Workspace, uri: str) -> None:
    names = [model_name(embedded)]
    build_index(embedded, settings(uri))
    for weights in ("second", "third"):
        (model_folder(embedded, "m") / WEIGHTS_FILE).write_text(weights)
        put(embedded, range(10))
        names.append(model_name(embedded))
        report = str(build_index(embedded, settings(uri)))
    assert f"removed the tables of earlier weights {names[0]}" in report
    assert embedding_tables(embedded) == sorted(names[1:])
    assert names[0] not in embedded.names("serving")
    client = collections.connect(uri)
    assert collections.versions(client, collections.alias_of(names[0])) == []
    assert collections.versions(client, collections.alias_of(names[1])) != []
