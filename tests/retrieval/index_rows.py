"""Rows such as the index is built of."""

import numpy as np
import pyarrow as pa

from ampere.records import Domain

DIM = 8


def rows(domains: list[Domain], seed: int = 0, first: int = 0) -> pa.Table:
    """Random unit vectors, one per given domain; the samples are numbered from `first`."""
    vectors = np.random.default_rng(seed).normal(size=(len(domains), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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
