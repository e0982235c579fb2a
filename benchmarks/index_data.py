"""Synthetic vectors and tables for `benchmarks/index.py` and `benchmarks/search.py`."""

from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from search_tables import vector_column

from ampere.records import Domain
from ampere.retrieval.index_types import TIE_TOLERANCE

BATCH, K = 256, 10
QUERIES = 1000  # that no index was built or tuned with
# Queries to tune and gate with: another domain, small enough to be searched exactly.
TUNING_QUERIES = 600


@dataclass(frozen=True, kw_only=True)
class Data:
    """Vectors of length 1 and rows of them for a search table.

    Attributes:
        pages: float32 [N, D].
        table: the pages, and `TUNING_QUERIES` shorts to tune and gate the index of pages with.
        deleted: ids of a hundredth of the pages, to delete.
        new_rows: as many new pages.
        added: float32 [N // 100, D], their vectors.
        queries: float32 [QUERIES, D].
        exact: float32 [QUERIES, K], similarities of the K nearest pages.
    """

    pages: NDArray[np.float32]
    table: pa.Table
    deleted: list[str]
    new_rows: pa.Table
    added: NDArray[np.float32]
    queries: NDArray[np.float32]
    exact: NDArray[np.float32]

    def recall(self, places: NDArray[np.int64]) -> float:
        """Return recall@10 of row numbers [QUERIES, K] of pages; ties count as correct."""
        similarity = np.einsum("qd,qkd->qk", self.queries, self.pages[places])
        correct = (places >= 0) & (similarity >= self.exact[:, -1:] - TIE_TOLERANCE)
        return float(correct.mean())


def draw_data(rows: int, dim: int) -> Data:
    """Return random data, the same in every run."""
    new = rows // 100
    vectors = draw_vectors(rows + new + TUNING_QUERIES + QUERIES, rows // 50, dim)
    pages, added, tuning, queries = np.split(vectors, np.cumsum([rows, new, TUNING_QUERIES]))
    shorts = table_of(tuning, Domain.SHORT)
    table = table_of(vectors[: rows + new], Domain.PAGE)
    queries = np.ascontiguousarray(queries)
    exact, _ = faiss.knn(queries, pages, K, metric=faiss.METRIC_INNER_PRODUCT)
    return Data(
        pages=pages,
        table=pa.concat_tables([table.slice(0, rows), shorts]),
        deleted=table["sample_id"].take(np.arange(0, rows, 100)).to_pylist(),
        new_rows=table.slice(rows),
        added=added,
        queries=queries,
        exact=exact,
    )


def draw_vectors(count: int, centers: int, dim: int) -> NDArray[np.float32]:
    """Return unit vectors around overlapping centers in 24 dimensions, with noise in all `dim`."""
    rng = np.random.default_rng(0)
    projection = rng.standard_normal((24, dim), dtype=np.float32)
    middle = rng.standard_normal((centers, 24), dtype=np.float32)
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 100_000):
        chunk = vectors[start : start + 100_000]
        inner = middle[rng.integers(centers, size=len(chunk))]
        inner += 0.7 * rng.standard_normal(inner.shape, dtype=np.float32)
        chunk[:] = inner @ projection + 0.3 * rng.standard_normal(chunk.shape, dtype=np.float32)
        chunk /= np.linalg.norm(chunk, axis=1, keepdims=True)
    return vectors


def table_of(vectors: NDArray[np.float32], domain: Domain) -> pa.Table:
    """Return the rows of a domain; the vectors are not copied."""
    count = len(vectors)
    first = list(Domain).index(domain) << 60  # equal fingerprints would be equal vectors
    return pa.table(
        {
            "sample_id": [f"{domain}{i:08}" for i in range(count)],
            "product_id": [f"p{i // 5:07}" for i in range(count)],
            "domain": [str(domain)] * count,
            "split": ["test"] * count,
            "origin": ["catalog"] * count,
            "vector": vector_column(vectors),
            "text": ["云岚薄荷控油洗发水 去屑"] * count,
            "media_uri": [f"{domain}/{i:08}.jpg" for i in range(count)],
            "fingerprint": [f"{first + i:016x}" for i in range(count)],
        }
    )
