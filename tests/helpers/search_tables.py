"""Search tables with random vectors, and searchers of them, without a workspace."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from ampere.config.index import IndexSettings
from ampere.records import EMBEDDINGS, Domain
from ampere.retrieval.base import write_base
from ampere.retrieval.gate import searched_rows
from ampere.retrieval.searcher import SERVING_TAG, Searcher
from ampere.retrieval.snapshot import Snapshot
from ampere.store.embeddings import VECTORS, index_columns
from ampere.store.table import Table

DIM = 8
EXTRA = [
    pa.field("category", pa.string()),
    pa.field("price", pa.float64()),
    pa.field("tags", pa.list_(pa.string())),
]

# Texts of the first rows, and words -> numbers of the rows that hold one of them.
NAMES = {
    0: "红色 Nike 跑鞋",
    1: "蓝色跑鞋 大码",
    2: "安克 Anker 充电宝 20000mAh",
    3: "蘋果 iPhone 手機殼",
    4: "苹果手机壳 iPhone 15",
    5: "waterproof running shoes",
}
WORDS = [
    ("跑鞋", {0, 1}),
    ("nike", {0}),
    ("NIKE跑鞋", {0, 1}),
    ("充电宝", {2}),
    ("安克", {2}),
    ("anker", {2}),
    ("iphone", {3, 4}),
    ("手機殼", {3}),
    ("手机壳", {4}),
    ("苹果", {4}),
    ("running shoes", {5}),
    ("20000mah", {2}),
    ("咖啡", set()),
]


def unit_vectors(count: int, seed: int, dim: int = DIM) -> np.ndarray:
    """Random unit vectors, float32 [count, dim]."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table_schema(dim: int = DIM, extra: Sequence[pa.Field] = EXTRA) -> pa.Schema:
    """The columns of a search table, with further ones."""
    vector = pa.list_(pa.float32(), dim)
    fields = [f.with_type(vector) if f.name in VECTORS else f for f in EMBEDDINGS.schema]
    return pa.schema([*fields, *extra])


def row(number: int, vector: Sequence[float], **columns: Any) -> dict[str, Any]:
    """A row of a page; its id, product and fingerprint are of its number."""
    return {
        "sample_id": f"s{number:04}",
        "fingerprint": f"{number:016x}",
        "vector": list(vector),
        "domain": str(Domain.PAGE),
        "product_id": f"p{number // 2}",
        "split": "test",
        "origin": "catalog",
        "media_uri": f"/media/{number}.jpg",
    } | columns


class SearchTable:
    """A search table in a folder, whose bases are built on demand."""

    def __init__(
        self,
        folder: Path,
        rows: Sequence[dict[str, Any]],
        dim: int = DIM,
        extra: Sequence[pa.Field] = EXTRA,
    ) -> None:
        self.folder, self.schema = folder, table_schema(dim, extra)
        self.uri = str(folder / "table.lance")
        lance.write_dataset(
            self.schema.empty_table(), self.uri, schema=self.schema, enable_stable_row_ids=True
        )
        self.table = Table(self.uri, EMBEDDINGS)
        index_columns(self.table)
        self.upsert(rows)

    @property
    def dataset(self) -> lance.LanceDataset:
        return lance.dataset(self.uri)

    def upsert(self, rows: Sequence[dict[str, Any]]) -> None:
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        merge = self.dataset.merge_insert("sample_id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(table)

    def delete(self, ids: Sequence[str]) -> None:
        names = ", ".join(f"'{name}'" for name in ids)
        self.dataset.delete(f"sample_id IN ({names})")

    def build(self, **settings: Any) -> int:
        """Build a base of the newest version and publish it; return the version."""
        self.dataset.update_config({"base": str(self.dataset.version)})
        dataset, made_with = self.dataset, IndexSettings(**settings)
        folder = self.base_folder(dataset.version)
        folder.mkdir()
        condition = None if made_with.split == "all" else f"split = '{made_with.split}'"
        rows = dataset.to_table(
            columns=["sample_id", "domain", "vector", "fingerprint"],
            filter=condition,
            with_row_id=True,
        )
        meta = {
            "settings": {"split": made_with.split},
            "table_version": dataset.version,
        }
        write_base(folder, rows, made_with, meta)
        self.publish(dataset.version)
        return dataset.version

    def publish(self, version: int) -> None:
        tags = self.dataset.tags
        if SERVING_TAG in tags.list():
            tags.update(SERVING_TAG, version)
        else:
            tags.create(SERVING_TAG, version)

    def base_folder(self, version: int) -> Path:
        return self.folder / f"v{version}"

    def searcher(
        self, shards: Sequence[int] | None = None, poll_s: float = 1.0, held_bytes: int = 0
    ) -> Searcher:
        return Searcher(self.uri, self.base_folder, shards, poll_s, held_bytes)


def stored(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """Sample id -> vector of the rows that a snapshot should hold."""
    rows = searched_rows(snapshot)
    return dict(
        zip(rows["sample_id"].to_pylist(), map(np.array, rows["vector"].to_pylist()), strict=True)
    )


def found(snapshot: Snapshot, query: np.ndarray, k: int = 1000) -> dict[str, float]:
    """Sample id -> similarity of all rows of all domains, by a search of the snapshot."""
    scores: dict[str, float] = {}
    for index in snapshot.domains.values():
        similarities, places = index.nearest(query[None], k)
        here = places[0] >= 0
        ids = index.sample_ids(places[0][here])
        assert not scores.keys() & ids and len(set(ids)) == len(ids)
        scores |= dict(zip(ids, similarities[0][here].tolist(), strict=True))
    return scores


Maker = Callable[..., SearchTable]
