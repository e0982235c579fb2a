"""The types of FAISS index: how each is built, what it weighs, how it is searched. Similarity is the dot product."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.config.index import IndexType

_untyped: Any = faiss  # whose type stubs lack the search parameters, and how Python calls the rest
# FAISS 1.15 compares a batch by one matrix product only from 128,000 / D queries, which is right for 80 threads. On two
# it is ten times as fast for 256 queries of 128 dimensions, and pays from a dozen: the bound that FAISS's own pull
# request 5109 measured for a thread.
_untyped.cvar.distance_compute_blas_threshold = 800 * faiss.omp_get_max_threads()

REFINED = 16  # times k: candidates that ivf-pq looks at again with better precision
POINTS_PER_LIST = 39  # fewer, and FAISS complains about training
FEWEST = 16 * POINTS_PER_LIST  # rows that ivf-pq's sixteen codes can be trained with
SPARE = 2  # answers of a graph search beyond twice what is likely to be gone
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


def check_gpu() -> None:
    """Raise RuntimeError if FAISS sees no GPU."""
    if faiss.get_num_gpus() == 0:
        raise RuntimeError(
            "index.gpu is set and FAISS sees no GPU: run where one is, with the CUDA build (`sh tools/setup.sh .venv "
            "gpu`), or without --index.gpu"
        )


def build(kind: IndexType, vectors: NDArray[np.float32], *, gpu: bool = False) -> faiss.Index:
    """An index of float32 [N, D] vectors of length 1; its ids are their places.

    Args:
        gpu: find the lists of an inverted file on all GPUs of this machine. The index is the CPU's all the same.

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
        lists.clustering_index = None  # FAISS keeps an address alone
        del clusters
    else:
        index.train(vectors)
    index.add(vectors)
    return index


@dataclass(frozen=True)
class LeftOut:
    """Items that an index holds and a search passes over.

    Attributes:
        gone: bool [N], by place.
        share: of the items that are gone.
        selector: the others, as FAISS wants to be told; every item that it looks at then costs more.
    """

    gone: NDArray[np.bool_]
    share: float
    selector: faiss.IDSelector


def leave_out(index: faiss.Index, gone: NDArray[np.bool_]) -> LeftOut | None:
    """Make an index find some of its items, bool [N], no more.

    Lists lose the items themselves, which costs no search anything; in a flat index the places of later items move up.
    The graph and the compressed lists keep theirs.

    Returns:
        What `search` must be given to pass over them; None: they are out of the index.
    """
    if isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)):
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(gone)))
        return None
    return LeftOut(
        gone, float(gone.mean()), _untyped.IDSelectorBitmap(np.packbits(~gone, bitorder="little"))
    )


def search(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    k: int,
    effort: int,
    left_out: LeftOut | None = None,
    past: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and places [Q, k + past] of the nearest items, best first; place -1 where there are fewer.

    Args:
        effort: one of the type's `EFFORTS`; more is slower and finds more.
        left_out: the items that must not be found, as `leave_out` gives them; None: none.
        past: answers besides the `k`, for which ivf-pq looks at no further candidates.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if left_out is not None and isinstance(index, faiss.IndexHNSW):
        return _search_graph(index, queries, k + past, effort, left_out)
    selector = left_out.selector if left_out else None
    return index.search(
        queries, k + past, params=_parameters(index, effort, selector, REFINED * k / (k + past))
    )


def _search_graph(
    index: faiss.Index, queries: NDArray[np.float32], wanted: int, effort: int, left_out: LeftOut
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A search for some more than are wanted, of which those that are gone are dropped.

    The graph search keeps `effort` candidates anyway. A selector, which it would ask about each item that it meets,
    costs a quarter of its time; so only queries whose answers are mostly gone are asked again with it.
    """
    spare = math.ceil(2 * wanted * left_out.share) + SPARE
    scores, places = index.search(
        queries, wanted + spare, params=_parameters(index, effort, None, 1)
    )
    found = (places >= 0) & ~left_out.gone[places]
    order = np.argsort(~found, axis=1, kind="stable")[:, :wanted]
    scores, places = (
        np.take_along_axis(scores, order, axis=1),
        np.take_along_axis(places, order, axis=1),
    )
    few = found.sum(axis=1) < wanted
    if few.any():
        parameters = _parameters(index, effort, left_out.selector, 1)
        scores[few], places[few] = index.search(queries[few], wanted, params=parameters)
    return scores, places


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
