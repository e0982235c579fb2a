"""FAISS index types: how each is built, sized and searched. Similarity is the dot product."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.config.index import IndexType

# Its type stubs are missing the search parameters, and describe the C++ signatures of the rest.
_untyped: Any = faiss

REFINE_FACTOR = 16  # times k: candidates that ivf-pq rescores at higher precision
POINTS_PER_LIST = 39  # FAISS warns if it trains an inverted list on fewer
MIN_TRAIN_ROWS = 16 * POINTS_PER_LIST  # to train the 16 centroids of a 4-bit code of ivf-pq
SPARE_CANDIDATES = 2  # of a graph search, beyond twice the expected number of deleted items
TIE_TOLERANCE = 1e-6  # similarities that differ by less are tied
# Search efforts to try, fastest first: nprobe of inverted lists, efSearch of a graph.
SEARCH_EFFORTS: Mapping[IndexType, tuple[int, ...]] = {
    "flat": (0,),
    "ivf-flat": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "ivf-pq": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "hnsw": (16, 32, 64, 128, 256, 512, 1024),
}


def set_blas_threshold() -> None:
    """Let FAISS compare a batch of queries by one matrix product from about a dozen queries on.

    This sets a global of the FAISS library. A process that builds or searches an index calls it
    once, at its start; importing this module changes nothing.

    FAISS 1.15 uses a matrix product only from 128,000 / D queries, which suits 80 threads. On two
    threads it is ten times as fast for 256 queries of 128 dimensions, and pays from a dozen
    queries. The factor 800 is the threshold per thread measured in FAISS pull request 5109.
    """
    _untyped.cvar.distance_compute_blas_threshold = 800 * faiss.omp_get_max_threads()


def factory(kind: IndexType, rows: int, dim: int) -> str:
    """Return the FAISS factory string of an index type.

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


def check_gpu() -> None:
    """Raise RuntimeError if FAISS sees no GPU."""
    if faiss.get_num_gpus() == 0:
        raise RuntimeError(
            "index.gpu is set, but FAISS sees no GPU. Run on a machine with a GPU and the CUDA "
            "build (`sh tools/setup.sh .venv gpu`), or without --index.gpu"
        )


def build(kind: IndexType, vectors: NDArray[np.float32], *, gpu: bool = False) -> faiss.Index:
    """Build an index of float32 [N, D] vectors of length 1; ids are row numbers.

    Args:
        gpu: cluster the inverted lists on all GPUs of this machine. The index itself stays on the
            CPU.

    Raises:
        ValueError: D does not suit the type.
    """
    rows, dim = vectors.shape
    if kind == "ivf-pq" and dim % 4:
        raise ValueError(f"vectors have {dim} dimensions; an ivf-pq index needs a multiple of 4")
    index = faiss.index_factory(dim, factory(kind, rows, dim), faiss.METRIC_INNER_PRODUCT)
    if gpu and kind in ("ivf-flat", "ivf-pq"):
        lists: Any = faiss.extract_index_ivf(index)
        lists.clustering_index = clusters = _untyped.index_cpu_to_all_gpus(faiss.IndexFlatIP(dim))
        index.train(vectors)
        # FAISS holds a bare pointer to the clustering index: clear it before the object is freed.
        lists.clustering_index = None
        del clusters
    else:
        index.train(vectors)
    index.add(vectors)
    return index


@dataclass(frozen=True)
class DeletedItems:
    """Tombstones: items that an index still holds and that a search must not return.

    Attributes:
        mask: bool [N], True for a deleted item.
        share: of the items that are deleted.
        selector: FAISS's selector of the remaining items. A search with it checks every item that
            it visits, which costs time.
    """

    mask: NDArray[np.bool_]
    share: float
    selector: faiss.IDSelector


def delete_items(index: faiss.Index, deleted: NDArray[np.bool_]) -> DeletedItems | None:
    """Delete items, bool [N], from an index, or return tombstones for them.

    Flat indexes and uncompressed inverted lists remove the items, at no cost to later searches; in
    a flat index the row numbers of later items move up. Graphs and compressed lists keep them.

    Returns:
        The tombstones to pass to `search`; None if the items were removed.
    """
    if isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)):
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(deleted)))
        return None
    selector = _untyped.IDSelectorBitmap(np.packbits(~deleted, bitorder="little"))
    return DeletedItems(deleted, float(deleted.mean()), selector)


def search(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    k: int,
    search_effort: int,
    deleted: DeletedItems | None = None,
    extra: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the similarities and row numbers of the nearest items, [Q, k + extra], best first.

    Where there are fewer items, the row number is -1.

    Args:
        search_effort: nprobe of ivf-flat and ivf-pq (lists to scan), efSearch of hnsw (size of the
            candidate queue), ignored by flat; see `SEARCH_EFFORTS`. Higher is slower, and usually
            has a higher recall.
        deleted: items to skip, as returned by `delete_items`; None: none.
        extra: results beyond the `k`, for which ivf-pq rescores no further candidates.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if deleted is not None and isinstance(index, faiss.IndexHNSW):
        return _search_graph(index, queries, k + extra, search_effort, deleted)
    selector = deleted.selector if deleted else None
    refine_factor = REFINE_FACTOR * k / (k + extra)
    parameters = _parameters(index, search_effort, selector, refine_factor)
    return index.search(queries, k + extra, params=parameters)


def _search_graph(
    index: faiss.Index,
    queries: NDArray[np.float32],
    k: int,
    search_effort: int,
    deleted: DeletedItems,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search a graph for more than `k` items and drop the deleted ones.

    The graph search holds `search_effort` candidates in any case, so the spare results are free. A
    selector, which FAISS asks about each visited item, adds a quarter to the time; so only the
    queries with fewer than `k` remaining results are repeated with it.
    """
    spare = math.ceil(2 * k * deleted.share) + SPARE_CANDIDATES
    scores, places = index.search(
        queries, k + spare, params=_parameters(index, search_effort, None, 1)
    )
    remaining = (places >= 0) & ~deleted.mask[places]
    # A stable sort moves the remaining items to the front, in the order of their similarities.
    order = np.argsort(~remaining, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(scores, order, axis=1)
    places = np.take_along_axis(places, order, axis=1)
    few = remaining.sum(axis=1) < k
    if few.any():
        parameters = _parameters(index, search_effort, deleted.selector, 1)
        scores[few], places[few] = index.search(queries[few], k, params=parameters)
    return scores, places


def _parameters(
    index: faiss.Index,
    search_effort: int,
    selector: faiss.IDSelector | None,
    refine_factor: float,
) -> faiss.SearchParameters:
    """Return FAISS's search parameters for the class of an index."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, search_effort, selector, refine_factor)
        return _untyped.IndexRefineSearchParameters(k_factor=refine_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return _untyped.SearchParametersHNSW(efSearch=search_effort, sel=selector)
    if isinstance(index, faiss.IndexIVF):
        return _untyped.SearchParametersIVF(nprobe=search_effort, sel=selector)
    return _untyped.SearchParameters(sel=selector)


def size_in_bytes(index: faiss.Index) -> int:
    """Return the size of an index on disk, which is also its size in memory once loaded.

    A freshly built index takes more: building over-allocates.
    """
    written = 0

    def count(data: bytes) -> int:
        nonlocal written
        written += len(data)
        return len(data)

    faiss.write_index(index, _untyped.PyCallbackIOWriter(count))
    return written
