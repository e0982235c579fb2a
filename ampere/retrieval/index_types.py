"""The types of FAISS index: how each is built, what it weighs, how it is searched. Similarity is the dot product."""

import math
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.config import IndexType

_untyped: Any = faiss  # whose type stubs lack the search parameters, and how Python calls the rest

REFINED = 16  # times k: candidates that ivf-pq looks at again with better precision
POINTS_PER_LIST = 39  # fewer, and FAISS complains about training
FEWEST = 16 * POINTS_PER_LIST  # rows that ivf-pq's sixteen codes can be trained with
SAME = 1e-6  # similarities this near are a tie
# What each search may look at, little to much: lists of an inverted file, or the breadth of the graph search.
EFFORTS: Mapping[IndexType, tuple[int, ...]] = {
    "flat": (0,),
    "ivf-flat": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "ivf-pq": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "hnsw": (16, 32, 64, 128, 256, 512, 1024),
}


def factory(kind: IndexType, rows: int, dim: int) -> str:
    """FAISS's own name of an index of a type.

    >>> factory("ivf-flat", 1_000_000, 128)
    'IVF4096,Flat'
    """
    lists = 2 ** round(math.log2(4 * math.sqrt(max(1, rows))))
    lists = max(1, min(lists, rows // POINTS_PER_LIST))
    return {
        "flat": "Flat",
        "hnsw": "HNSW32",
        "ivf-flat": f"IVF{lists},Flat",
        "ivf-pq": f"IVF{lists},PQ{dim // 4}x4fs,Refine(SQfp16)",
    }[kind]


def build(kind: IndexType, vectors: NDArray[np.float32]) -> faiss.Index:
    """An index of float32 [N, D] vectors of length 1; its ids are their places.

    Raises:
        ValueError: D does not suit the type.
    """
    rows, dim = vectors.shape
    if kind == "ivf-pq" and dim % 4:
        raise ValueError(f"vectors have {dim} dimensions; an ivf-pq index needs a multiple of 4")
    index = faiss.index_factory(dim, factory(kind, rows, dim), faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def leave_out(index: faiss.Index, gone: NDArray[np.bool_]) -> faiss.IDSelector | None:
    """Make an index find some of its items, bool [N], no more.

    Lists lose the items themselves, which costs no search anything; in a flat index the places of later items move up.
    The graph and the compressed lists keep theirs.

    Returns:
        What `search` must be given to pass over them; None: they are out of the index.
    """
    if isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)):
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(gone)))
        return None
    return _untyped.IDSelectorBitmap(np.packbits(~gone, bitorder="little"))


def search(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    k: int,
    effort: int,
    kept: faiss.IDSelector | None = None,
    past: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and places [Q, k + past] of the nearest items, best first; place -1 where there are fewer.

    Args:
        effort: one of the type's `EFFORTS`; more is slower and finds more.
        kept: the items that may be found, as `leave_out` gives them; None: all.
        past: answers besides the `k`, for which ivf-pq looks at no further candidates.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    return index.search(queries, k + past, params=_parameters(index, effort, kept, REFINED * k / (k + past)))


def _parameters(
    index: faiss.Index, effort: int, selector: faiss.IDSelector | None, refined: float
) -> faiss.SearchParameters:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, effort, selector, refined)
        return _untyped.IndexRefineSearchParameters(k_factor=refined, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return _untyped.SearchParametersHNSW(efSearch=effort, sel=selector)
    if isinstance(index, faiss.IndexIVF):
        return _untyped.SearchParametersIVF(nprobe=effort, sel=selector)
    return _untyped.SearchParameters(sel=selector)


def size_in_bytes(index: faiss.Index) -> int:
    """What an index weighs on disk, and so in memory once it is read back: what building left unused is gone then."""
    written = 0

    def count(data: bytes) -> int:
        nonlocal written
        written += len(data)
        return len(data)

    faiss.write_index(index, _untyped.PyCallbackIOWriter(count))
    return written
