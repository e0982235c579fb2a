"""FAISS index types: how each is built, sized and searched. Similarity is the dot product."""

import math
from collections.abc import Mapping
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


def search(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    k: int,
    search_effort: int,
    extra: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the similarities and row numbers of the nearest items, [Q, k + extra], best first.

    Where there are fewer items, the row number is -1.

    Args:
        search_effort: nprobe of ivf-flat and ivf-pq (lists to scan), efSearch of hnsw (size of the
            candidate queue), ignored by flat; see `SEARCH_EFFORTS`. Higher is slower, and usually
            has a higher recall.
        extra: results beyond the `k`, for which ivf-pq rescores no further candidates.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    parameters = search_parameters(index, search_effort, None, k, k + extra)
    return index.search(queries, k + extra, params=parameters)


def search_parameters(
    index: faiss.Index,
    search_effort: int,
    selector: faiss.IDSelector | None,
    k: int,
    results: int,
    *,
    effort_factor: float = 1,
) -> faiss.SearchParameters:
    """Return FAISS's search parameters for the class of an index.

    Args:
        search_effort: see `search`.
        selector: of the items that a search may return; None: all.
        k: results that ivf-pq rescores candidates for.
        results: number that is searched for, at least `k`.
        effort_factor: multiplies the search effort; infinite: all lists, or the whole graph.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(
            index.base_index, search_effort, selector, k, results, effort_factor=effort_factor
        )
        factor = REFINE_FACTOR * k / results
        return _untyped.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        effort = min(index.ntotal, max(results, search_effort * effort_factor))
        return _untyped.SearchParametersHNSW(efSearch=math.ceil(effort), sel=selector)
    if isinstance(index, faiss.IndexIVF):
        effort = min(index.nlist, search_effort * effort_factor)
        return _untyped.SearchParametersIVF(nprobe=math.ceil(effort), sel=selector)
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
