"""Searches of a FAISS index over some of its items: those that pass a filter and still exist.

Three ways, by the number of items that a search may return:

- nearly all: search for more than `k` and drop the others. Batches keep the matrix product of an
  exact search, and graphs their speed;
- few: compare the query with each of them, which is exact and faster than any index;
- between: FAISS asks a bitmap about each item that it visits, and visits more.

`benchmarks/search.py` measures the limits between them.
"""

import math
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.retrieval.index_types import search, search_parameters

# Comparing a query of 128 dimensions with this many vectors takes about as long as a graph search
# whose effort is raised to keep its recall.
COMPARED_ITEMS = 50_000
DROPPED_SHARE = 0.2  # of excluded items, up to which they are dropped after the search
SPARE_RESULTS = 2  # beyond twice the expected number of excluded ones
MAX_EFFORT_FACTOR = 8  # of the search effort, where many items are excluded

_untyped: Any = faiss  # its type stubs are missing the selectors' constructors


class Allowed:
    """The items of an index that a search may return.

    Args:
        mask: bool [N].
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @property
    def share(self) -> float:
        """Allowed items, as a share of all."""
        return self.count / max(1, len(self.mask))

    def without(self, excluded: NDArray[np.bool_]) -> "Allowed":
        """The same items without some, bool [N]."""
        return Allowed(self.mask & ~excluded)

    @cached_property
    def bitmap(self) -> faiss.IDSelector:
        """FAISS's selector that looks each item up."""
        return _untyped.IDSelectorBitmap(np.packbits(self.mask, bitorder="little"))

    @cached_property
    def listed(self) -> faiss.IDSelector:
        """FAISS's selector that names the items: an exact search compares with these alone."""
        return _untyped.IDSelectorArray(np.flatnonzero(self.mask))


def search_allowed(
    index: faiss.Index,
    vectors: NDArray[np.float32],
    k: int,
    effort: int,
    allowed: Allowed | None = None,
    extra: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The similarities and numbers of the nearest allowed items, [Q, k + extra], best first.

    Where there are fewer items, the number is -1.

    Args:
        index: of any type of `index_types`.
        vectors: float32 [Q, D].
        k: results per query.
        effort: see `index_types.search`.
        allowed: None: all items.
        extra: results beyond the `k`, for which ivf-pq rescores no further candidates.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if allowed is None or allowed.count == len(allowed.mask):
        return search(index, queries, k, effort, extra=extra)
    wanted = k + extra
    if not allowed.count:
        shape = (len(queries), wanted)
        return np.zeros(shape, np.float32), np.full(shape, -1, np.int64)
    if 1 - allowed.share <= DROPPED_SHARE:
        return _search_and_drop(index, queries, k, effort, allowed, extra)
    return _search_selected(index, queries, k, effort, allowed, extra)


def _search_and_drop(
    index: faiss.Index,
    queries: NDArray[np.float32],
    k: int,
    effort: int,
    allowed: Allowed,
    extra: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search for spare results and drop the excluded ones.

    Queries that keep too few results are repeated with a selector.
    """
    wanted = k + extra
    spare = math.ceil(2 * wanted * (1 - allowed.share)) + SPARE_RESULTS
    scores, places = search(index, queries, k, effort, extra=extra + spare)
    remaining = (places >= 0) & allowed.mask[places]
    # A stable sort moves the remaining items to the front, in the order of their similarities.
    order = np.argsort(~remaining, axis=1, kind="stable")[:, :wanted]
    scores = np.take_along_axis(scores, order, axis=1)
    places = np.take_along_axis(np.where(remaining, places, -1), order, axis=1)
    few = remaining.sum(axis=1) < min(wanted, allowed.count)
    if few.any():
        repeated = _search_selected(index, queries[few], k, effort, allowed, extra)
        scores[few], places[few] = repeated
    return scores, places


def _search_selected(
    index: faiss.Index,
    queries: NDArray[np.float32],
    k: int,
    effort: int,
    allowed: Allowed,
    extra: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search with a selector: exactly if there are few allowed items, else with more effort."""
    wanted = k + extra
    exact = exact_index(index)
    few = allowed.count <= max(COMPARED_ITEMS, wanted)
    if exact is not None and (few or exact is index):
        parameters = _untyped.SearchParameters(sel=allowed.listed if few else allowed.bitmap)
        return exact.search(queries, wanted, params=parameters)
    factor = math.inf if few else min(MAX_EFFORT_FACTOR, 1 / allowed.share)
    parameters = search_parameters(index, effort, allowed.bitmap, k, wanted, effort_factor=factor)
    return index.search(queries, wanted, params=parameters)


def exact_index(index: faiss.Index) -> faiss.Index | None:
    """The flat index that an index is, or that a graph keeps its vectors in; None for others."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexHNSWFlat):
        return faiss.downcast_index(index.storage)
    return index if isinstance(index, faiss.IndexFlat) else None
