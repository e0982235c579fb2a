"""Rows to build indexes from."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ampere.records import Domain

DIM = 8


def rows(domains: Sequence[Domain], seed: int = 0, first: int = 0) -> pa.Table:
    """Return a row with a random unit vector for each given domain, numbered from `first`."""
    vectors = unit_vectors(len(domains), seed)
    numbers = range(first, first + len(domains))
    return pa.table(
        {
            "sample_id": [f"s{i}" for i in numbers],
            "product_id": pa.array([f"p{i // 2}" if i % 3 else None for i in numbers], pa.string()),
            "domain": [str(domain) for domain in domains],
            "vector": pa.array(list(vectors), pa.list_(pa.float32())),
            "text": pa.array([f"text {i}" if i % 4 else None for i in numbers], pa.string()),
            "media_uri": [f"/media/{i}.jpg" for i in numbers],
            "fingerprint": [f"f{seed}-{i}" for i in numbers],
        }
    )


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """Return random unit vectors, float32 [count, DIM]."""
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def alike(table: pa.Table, shift: int = 0) -> pa.Table:
    """Return the rows with one of six vectors each, by their number, so that many are equal."""
    numbers = np.array([int(name[1:]) for name in table["sample_id"].to_pylist()], dtype=int)
    vectors = unit_vectors(6, seed=3)[(numbers + shift) % 6]
    column = table.column_names.index("vector")
    return table.set_column(column, "vector", pa.array(list(vectors), pa.list_(pa.float32())))
