"""Engines of both kinds over the same rows."""

import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ampere.records import EMBEDDINGS
from ampere.retrieval import milvus_collections as collections
from ampere.retrieval.engine import FaissEngine, IndexEngine
from ampere.retrieval.milvus import MilvusEngine
from ampere.retrieval.searcher import Searcher
from ampere.retrieval.writer import TableWriter
from tests.helpers.search_tables import SearchTable

Rows = Sequence[dict[str, Any]]
Build = Callable[[Rows], str]  # publishes a version of these rows; returns its name


def as_table(rows: Rows, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


@contextmanager
def faiss_engine(
    folder: Path, rows: Rows, schema: pa.Schema
) -> Iterator[tuple[IndexEngine, Build]]:
    """The engine faiss; a version that is built later is a base of the newest rows."""
    extra = [field for field in schema if field.name not in EMBEDDINGS.schema.names]
    table = SearchTable(folder, rows, extra=extra)
    table.build()

    def build(more: Rows) -> str:
        table.upsert(more)
        return str(table.build())

    searcher = Searcher(table.uri, table.base_folder, poll_s=0.05)
    engine = FaissEngine(searcher, TableWriter(table.uri, group_s=0.01))
    yield engine, build
    engine.close()


@contextmanager
def quick_milvus() -> Iterator[None]:
    """The client of Milvus asks every half second whether an index is ready; here it asks often."""
    from pymilvus.client import grpc_handler

    clock = types.SimpleNamespace(**vars(time) | {"sleep": lambda _: time.sleep(0.01)})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grpc_handler, "time", clock)
        yield


@contextmanager
def milvus_engine(
    folder: Path, rows: Rows, schema: pa.Schema
) -> Iterator[tuple[IndexEngine, Build]]:
    """The engine milvus on a file of milvus-lite; a version that is built has its rows alone."""
    from milvus_lite.server_manager import server_manager_instance

    uri, alias = str(folder / "milvus.db"), collections.alias_of("m@0")
    client = collections.connect(uri)
    built = 0

    def build(more: Rows) -> str:
        nonlocal built
        built += 1
        collection = collections.collection_of(alias, built)
        collections.create(client, collection, schema, {"rows": len(more)})
        collections.write(client, collection, as_table(more, schema))
        collections.add_indexes(client, collection, "FLAT")
        collections.publish(client, alias, built)
        return str(built)

    with quick_milvus():
        build(rows)
        engine = MilvusEngine(uri, alias)
        yield engine, build
    engine.close()
    server_manager_instance.release_server(uri)
