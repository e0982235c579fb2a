"""The rows of one domain in memory: FAISS indexes over parts of them, searched as one.

A segment never changes. An update or deletion marks its row as deleted (a tombstone) in a new
`Segment` that shares the index, so a search that has begun goes on with the old one.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.retrieval.allowed import DROPPED_SHARE, Allowed, search_allowed
from ampere.retrieval.index_types import TIE_TOLERANCE, build
from ampere.retrieval.row_places import RowPlaces

EXTRA_CANDIDATES = 4  # fetched beyond the k-th result, since some may tie with it
MISSING_SCORE = np.finfo(np.float32).min  # where there is no result
FEW_TEXTS = 24
MERGED_ROWS = 1024  # segments of added rows are merged up to this size, and beyond it by doubling


@dataclass(frozen=True, eq=False)
class Segment:
    """A FAISS index over some rows of a domain: a shard of a base, or rows that came since.

    Attributes:
        index: its ids are positions in the arrays below.
        sample_ids: string [N].
        row_ids: uint64 [N], Lance's stable row ids.
        row_places: the positions of these ids, those of deleted rows included.
        fingerprints: uint64 [N], of what the vectors were made from.
        search_effort: see `ampere.retrieval.index_types.search`.
        allowed: the rows that are not deleted; None: all.
        is_base: whether it is a shard of a base, not rows that came since.
    """

    index: faiss.Index
    sample_ids: pa.Array
    row_ids: NDArray[np.uint64]
    row_places: RowPlaces
    fingerprints: NDArray[np.uint64]
    search_effort: int = 0
    allowed: Allowed | None = None
    is_base: bool = False

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows are not deleted, bool [N]."""
        return np.ones(len(self.row_ids), bool) if self.allowed is None else self.allowed.mask

    @property
    def count(self) -> int:
        """Number of rows that are not deleted."""
        return len(self.row_ids) if self.allowed is None else self.allowed.count

    def places_of(self, row_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The position of each row, int64 [M]; -1 where there is none, or it is deleted."""
        places = self.row_places.of(row_ids)
        return places if self.allowed is None else np.where(self.allowed.mask[places], places, -1)

    def without(self, deleted: NDArray[np.bool_]) -> "Segment":
        """The segment with further deleted rows, bool [N]."""
        if not deleted.any():
            return self
        return dataclasses.replace(self, allowed=Allowed(self.mask & ~deleted))


def added_segment(
    sample_ids: pa.Array,
    row_ids: NDArray[np.uint64],
    fingerprints: NDArray[np.uint64],
    vectors: NDArray[np.float32],
) -> Segment:
    """An exact segment of rows that came since the base."""
    return Segment(build("flat", vectors), sample_ids, row_ids, RowPlaces(row_ids), fingerprints)


def with_added(segments: Sequence[Segment], added: Segment) -> list[Segment]:
    """The segments and a new one, merged with the small ones before it.

    Each row is copied a few times only, and a search has few segments to go through, as in a
    log-structured merge tree. Deleted rows are left out of a merged segment.
    """
    segments = list(segments)
    while segments and not segments[-1].is_base:
        last = segments[-1]
        if last.count > max(MERGED_ROWS, 2 * added.count):
            break
        added = _merged(segments.pop(), added)
    return [*segments, added]


def _merged(first: Segment, second: Segment) -> Segment:
    """The remaining rows of two flat segments."""
    vectors = [stored_vectors(segment.index)[segment.mask] for segment in (first, second)]
    masks = [pa.array(segment.mask) for segment in (first, second)]
    ids = [
        segment.sample_ids.filter(mask)
        for segment, mask in zip((first, second), masks, strict=True)
    ]
    return added_segment(
        pa.concat_arrays(ids),
        np.concatenate([first.row_ids[first.mask], second.row_ids[second.mask]]),
        np.concatenate([first.fingerprints[first.mask], second.fingerprints[second.mask]]),
        np.concatenate(vectors),
    )


def stored_vectors(index: faiss.Index) -> NDArray[np.float32]:
    """The vectors of a flat index, float32 [N, D], without a copy."""
    flat: Any = faiss.downcast_index(index)
    return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)


class PassingRows:
    """The rows that pass a filter, and the items of each segment that a search may return for it.

    Args:
        mask: bool [largest row id + 1].
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self._allowed: dict[int, tuple[Segment, Allowed]] = {}  # by the segment's identity

    def of(self, segment: Segment) -> Allowed:
        """The items of a segment that pass and are not deleted."""
        if id(segment) not in self._allowed:
            allowed = Allowed(segment.mask & looked_up(self.mask, segment.row_ids))
            self._allowed[id(segment)] = segment, allowed
        return self._allowed[id(segment)][1]


class DomainIndex:
    """The segments of a domain, searched as one index. Places count through all of them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = [segment for segment in segments if len(segment.row_ids)]
        sizes = [len(segment.row_ids) for segment in self.segments]
        self.starts = np.cumsum([0, *sizes], dtype=np.int64)

    @property
    def count(self) -> int:
        """Number of rows that are not deleted."""
        return sum(segment.count for segment in self.segments)

    @cached_property
    def compared(self) -> int:
        """Number of rows that a search without a filter compares one by one."""
        return sum(
            segment.count
            for segment in self.segments
            if isinstance(faiss.downcast_index(segment.index), faiss.IndexFlat)
            or (segment.allowed is not None and 1 - segment.allowed.share > DROPPED_SHARE)
        )

    def nearest(
        self,
        vectors: NDArray[np.float32],
        k: int,
        passing: PassingRows | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and places [Q, k], best first, ties in the order of sample ids.

        Where there are fewer rows, the place is -1. The result does not depend on which segment a
        row is in, unless more than `EXTRA_CANDIDATES` ties of the k-th result are cut off.

        Args:
            vectors: float32 [Q, D], of length 1.
            k: results per query.
            passing: rows that pass a filter; None: all.
        """
        scores, places = [], []
        for start, segment in zip(self.starts, self.segments, strict=False):
            allowed = segment.allowed if passing is None else passing.of(segment)
            found_scores, found = search_allowed(
                segment.index, vectors, k, segment.search_effort, allowed, EXTRA_CANDIDATES
            )
            scores.append(found_scores)
            places.append(np.where(found >= 0, found + start, -1))
        if not scores:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        merged_scores, merged = merge_ranked(
            np.concatenate(scores, axis=1), np.concatenate(places, axis=1), self.ranks
        )
        return merged_scores[:, :k], merged[:, :k]

    def sample_ids(self, places: NDArray[np.int64]) -> list[str]:
        """Sample ids of some places, none of them -1."""
        ids = np.empty(len(places), object)
        for start, segment in zip(self.starts, self.segments, strict=False):
            here = (places >= start) & (places < start + len(segment.row_ids))
            if here.any():
                ids[here] = texts_at(segment.sample_ids, places[here] - start)
        return ids.tolist()

    def row_ids(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Row ids of some places, none of them -1."""
        rows = np.zeros(len(places), np.uint64)
        for start, segment in zip(self.starts, self.segments, strict=False):
            here = (places >= start) & (places < start + len(segment.row_ids))
            rows[here] = segment.row_ids[places[here] - start]
        return rows

    def places_of(self, row_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each row, int64 [M]; -1 where this domain has no such row."""
        places = np.full(len(row_ids), -1)
        for start, segment in zip(self.starts, self.segments, strict=False):
            found = segment.places_of(row_ids)
            places = np.where(found >= 0, found + start, places)
        return places

    def ranks(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rank of each place by its sample id among these places, in their shape."""
        flat = np.maximum(places.ravel(), 0)
        unique, inverse = np.unique(flat, return_inverse=True)
        ranks = pc.rank(pa.array(self.sample_ids(unique)), tiebreaker="first").to_numpy()
        return ranks.astype(np.int64)[inverse].reshape(places.shape)


def texts_at(texts: pa.Array, places: NDArray[np.int64]) -> list[str]:
    """Some texts of a column, of few one by one: Arrow's call takes as long as 25 of them."""
    if len(places) <= FEW_TEXTS:
        return [texts[place].as_py() for place in places.tolist()]
    return texts.take(pa.array(places)).to_pylist()


def looked_up(passing: NDArray[np.bool_], row_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which row ids pass, bool [N]; ids beyond the end of the mask do not."""
    inside = row_ids < len(passing)
    if inside.all():
        return passing[row_ids]
    result = np.zeros(len(row_ids), bool)
    result[inside] = passing[row_ids[inside]]
    return result


def merge_ranked(
    scores: NDArray[np.float32],
    places: NDArray[np.int64],
    ranks: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sort each query's candidates by similarity, best first, and ties by rank.

    The last bits of equal rows' similarities may differ between segments. So candidates that differ
    by less than `TIE_TOLERANCE` are tied, and a chain of such neighbors is one tie. Within a tie
    the scores stay sorted, and only the places are reordered.

    Places 0, 1, 2 have the sample ids c, b, a, and a fourth candidate is missing:

    >>> scores = np.array([[0.5, 0.9, 0.5, 0.0]], np.float32)
    >>> merge_ranked(scores, np.array([[0, 1, 2, -1]]), lambda places: 3 - places)[1].tolist()
    [[1, 2, 0, -1]]

    Args:
        scores: float32 [Q, C], in any order.
        places: int64 [Q, C]; -1 where there is no candidate.
        ranks: gives the order of some places among ties, in their shape; called only if there are
            ties.

    Returns:
        Scores and places, [Q, C] each; `MISSING_SCORE` and -1 at the end.
    """
    scores = np.where(places >= 0, scores, MISSING_SCORE)
    best_first = np.argsort(-scores, axis=1, kind="stable")
    queries = np.arange(len(scores))[:, None]
    scores, places = scores[queries, best_first], places[queries, best_first]
    drops = scores[:, :-1] - scores[:, 1:] > TIE_TOLERANCE
    has_ties = (~drops & (places[:, 1:] >= 0)).any(axis=1)
    if has_ties.any():
        tied = places[has_ties]
        first = np.zeros((len(tied), 1), bool)
        numbers = np.cumsum(np.concatenate([first, drops[has_ties]], axis=1), axis=1)
        order = np.lexsort((ranks(tied), numbers), axis=1)
        places[has_ties] = np.take_along_axis(tied, order, axis=1)
    return scores, places


def shard_numbers(sample_ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """The shard of each sample, by a checksum of its id: the same in every build."""
    return np.array(
        [zlib.crc32(sample_id.encode()) % count for sample_id in sample_ids], dtype=np.int64
    )


def stacked_vectors(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float32]:
    """A column of lists of equal length as float32 [N, D]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.empty((0, 1), np.float32)
    values = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values.reshape(len(array), -1), np.float32)


def fingerprint_numbers(fingerprints: Sequence[str]) -> NDArray[np.uint64]:
    """Fingerprints, 16 hexadecimal digits each, as numbers: a third of the memory."""
    return np.array([int(fingerprint, 16) for fingerprint in fingerprints], np.uint64)
