"""Searches of a FAISS index over some of its items: those that pass a filter and still exist.

Three ways, by the number of items that a search may return:

- nearly all: search for more than `k` and drop the others. Batches keep the matrix product of an
  exact search, and graphs their speed;
- few: compare the query with each of them, which is exact and faster than any index;
- between: FAISS asks a bitmap about each item that it visits, and visits more.

Where one way finds too few items, the next one searches again.

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
# of a million with its raised effort.
COMPARED_ITEMS = 100_000
DROPPED_SHARE = 0.2  # of excluded items, up to which they are dropped after the search
SPARE_RESULTS = 2  # beyond twice the expected number of excluded ones
# Where half of the items are excluded, the search effort is multiplied by twice this, and so on. By
# 1 it would do for items that are excluded at random. Those of a category lie together, and where
# they are far from the query, most that are visited are excluded.
EFFORT_PER_SHARE = 2
MAX_EFFORT_FACTOR = 32  # of the search effort

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
    wanted = k + extra
    count = index.ntotal if allowed is None else allowed.count
    if not count:
        shape = (len(queries), wanted)
        return np.zeros(shape, np.float32), np.full(shape, -1, np.int64)
    if allowed is None or count == index.ntotal:
        scores, places = search(index, queries, k, effort, extra=extra)
    elif 1 - allowed.share <= DROPPED_SHARE:
        scores, places = _search_and_drop(index, queries, k, effort, allowed, extra)
        few = (places >= 0).sum(axis=1) < wanted
        if few.any():
            selected = _search_selected(index, queries[few], k, effort, allowed, extra)
            scores[few], places[few] = selected
    else:
        scores, places = _search_selected(index, queries, k, effort, allowed, extra)
    few = (places >= 0).sum(axis=1) < min(wanted, count)
    if few.any():
        allowed = allowed or Allowed(np.ones(count, bool))
        scores[few], places[few] = _search_all(index, queries[few], k, allowed, extra)
    return scores, places


def _search_and_drop(
    index: faiss.Index,
    queries: NDArray[np.float32],
    k: int,
    effort: int,
    allowed: Allowed,
    extra: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search for spare results and drop the excluded ones; too few may remain."""
    wanted = k + extra
    spare = math.ceil(2 * wanted * (1 - allowed.share)) + SPARE_RESULTS
    scores, places = search(index, queries, k, effort, extra=extra + spare)
    remaining = (places >= 0) & allowed.mask[places]
    # A stable sort moves the remaining items to the front, in the order of their similarities.
    order = np.argsort(~remaining, axis=1, kind="stable")[:, :wanted]
    scores = np.take_along_axis(scores, order, axis=1)
    places = np.take_along_axis(np.where(remaining, places, -1), order, axis=1)
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
    if allowed.count <= COMPARED_ITEMS or isinstance(faiss.downcast_index(index), faiss.IndexFlat):
        return _search_all(index, queries, k, allowed, extra)
    factor = min(MAX_EFFORT_FACTOR, EFFORT_PER_SHARE / allowed.share)
    parameters = search_parameters(
        index, effort, allowed.bitmap, k, k + extra, effort_factor=factor
    )
    return index.search(queries, k + extra, params=parameters)


def _search_all(
    index: faiss.Index,
    queries: NDArray[np.float32],
    k: int,
    allowed: Allowed,
    extra: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare the queries with all allowed items."""
    exact = exact_index(index)
    if exact is not None:
        # Only a flat index goes through a list without looking at the other items.
        is_list = isinstance(exact, faiss.IndexFlat) and allowed.count <= COMPARED_ITEMS
        selector = allowed.listed if is_list else allowed.bitmap
        return exact.search(queries, k + extra, params=_untyped.SearchParameters(sel=selector))
    parameters = search_parameters(
        index, 1, allowed.bitmap, k, k + extra, effort_factor=index.ntotal
    )
    return index.search(queries, k + extra, params=parameters)


def exact_index(index: faiss.Index) -> faiss.Index | None:
    """What an index keeps whole vectors in, to compare a query with each; None: it has only lists.

    That of ivf-pq has 16-bit floats, from which the index itself takes its similarities.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexHNSWFlat):
        return faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexRefine):
        return faiss.downcast_index(index.refine_index)
    return index if isinstance(index, faiss.IndexFlat) else None
