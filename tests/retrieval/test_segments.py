"""Segments of one domain: ties, merging, and the order of results."""

import numpy as np
import pyarrow as pa
import pytest

from ampere.retrieval.index_types import build
from ampere.retrieval.row_places import RowPlaces
from ampere.retrieval.segments import (
    MERGED_ROWS,
    MISSING_SCORE,
    DomainIndex,
    PassingRows,
    Segment,
    added_segment,
    merge_ranked,
    stacked_vectors,
    stored_vectors,
    with_added,
)
from tests.helpers.search_tables import unit_vectors


def segment(names: list[str], vectors: np.ndarray, *, is_base: bool = False) -> Segment:
    """A flat segment whose row ids are 1000 more than the numbers in its names."""
    row_ids = np.array([1000 + int(name[1:]) for name in names], np.uint64)
    places = RowPlaces(row_ids)
    return Segment(
        build("flat", vectors), pa.array(names), row_ids, places, row_ids, is_base=is_base
    )


def results(index: DomainIndex, query: np.ndarray, k: int) -> list[str]:
    _, places = index.nearest(query[None], k)
    return index.sample_ids(places[0][places[0] >= 0])


def test_merge_ranked_by_hand() -> None:
    """Places 0 to 4 have the ids e, d, c, b, a: of two ties the higher place comes first."""
    scores = np.array(
        [
            [0.5, 0.9, 0.5 + 5e-7, 0.1],  # places 0 and 2 differ by less than 1e-6: a tie
            [0.5, 0.5 + 8e-7, 0.5 + 16e-7, 0.5 + 40e-7],  # a chain of three, and one above it
            [0.2, 7.0, 0.3, 7.0],  # the missing ones have any score
        ],
        np.float32,
    )
    places = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [3, -1, 1, -1]])
    merged_scores, merged_places = merge_ranked(scores, places, lambda tied: -tied)
    assert merged_places.tolist() == [[1, 2, 0, 3], [4, 2, 1, 0], [1, 3, -1, -1]]
    assert merged_scores.tolist() == [
        [scores[0, at] for at in (1, 2, 0, 3)],
        [scores[1, at] for at in (3, 2, 1, 0)],
        [scores[2, 2], scores[2, 0], MISSING_SCORE, MISSING_SCORE],
    ]


def test_merge_ranked_orders_ties_by_rank_and_leaves_scores_sorted() -> None:
    """Place 0 has the first id, and a similarity in a last bit below place 1."""
    scores = np.array([[0.5, 0.5 + 5e-7]], np.float32)
    merged_scores, merged_places = merge_ranked(scores, np.array([[0, 1]]), lambda tied: tied)
    assert merged_places.tolist() == [[0, 1]]
    assert merged_scores.tolist() == [[scores[0, 1], scores[0, 0]]]


def test_ranks_are_asked_for_only_where_there_are_ties() -> None:
    def refuse(tied: np.ndarray) -> np.ndarray:
        raise AssertionError("there are no ties")

    scores = np.array([[0.5, 0.9, 0.0, 0.0]], np.float32)
    assert merge_ranked(scores, np.array([[3, 5, -1, -1]]), refuse)[1].tolist() == [[5, 3, -1, -1]]


def test_ties_are_ordered_by_id_across_segments() -> None:
    """s3 is in the base, s2 and s4 came later, and all three have the same vector."""
    vectors = unit_vectors(4, seed=1)
    base = segment(["s0", "s1", "s3"], vectors[[0, 1, 3]], is_base=True)
    later = segment(["s4", "s2"], vectors[[3, 3]])
    index = DomainIndex([base, later])
    for k in (1, 2, 3):
        assert results(index, vectors[3], k) == ["s2", "s3", "s4"][:k]


def test_k_above_the_number_of_rows() -> None:
    vectors = unit_vectors(3, seed=1)
    index = DomainIndex([segment(["s0", "s1", "s2"], vectors)])
    assert sorted(results(index, vectors[0], 100)) == ["s0", "s1", "s2"]
    scores, places = index.nearest(vectors[:1], 100)
    assert scores.shape == places.shape == (1, 100)
    assert (places[0] >= 0).sum() == 3


def test_index_without_segments_has_no_results() -> None:
    scores, places = DomainIndex([]).nearest(unit_vectors(2, seed=1), 5)
    assert scores.shape == places.shape == (2, 0) and DomainIndex([]).count == 0


def test_only_passing_rows_are_results() -> None:
    vectors = unit_vectors(4, seed=1)
    index = DomainIndex([segment(["s0", "s1"], vectors[:2]), segment(["s2", "s3"], vectors[2:])])
    passing = np.zeros(1003, bool)
    passing[[1001, 1002]] = True  # and 1003 is beyond the end of the mask
    rows = PassingRows(passing)
    for segments in (index.segments, [index.segments[0].without(np.array([False, True]))]):
        _, places = DomainIndex(segments).nearest(vectors[:1], 5, rows)
        names = DomainIndex(segments).sample_ids(places[0][places[0] >= 0])
        assert set(names) == ({"s1", "s2"} if len(segments) == 2 else set())
    assert rows.of(index.segments[0]) is rows.of(index.segments[0])  # it is kept


def test_small_segments_are_merged_and_a_base_is_not() -> None:
    vectors = unit_vectors(4, seed=1)
    base = segment(["s0"], vectors[:1], is_base=True)
    first = with_added([base], segment(["s1", "s2"], vectors[1:3]))
    deleted = first[1].without(np.array([True, False]))
    merged = with_added([base, deleted], segment(["s3"], vectors[3:]))
    assert [len(part.row_ids) for part in first] == [1, 2]
    assert merged[0] is base and merged[1].sample_ids.to_pylist() == ["s2", "s3"]
    assert merged[1].row_ids.tolist() == [1002, 1003]
    np.testing.assert_array_equal(stored_vectors(merged[1].index), vectors[2:])


def test_rows_are_copied_few_times() -> None:
    """Of 4,000 rows that come one by one, few segments remain, and each holds twice the next."""
    vectors = unit_vectors(4000, seed=1)
    segments: list[Segment] = []
    copied = 0
    for start in range(0, 4000, 40):
        ids = np.arange(start, start + 40)
        added = added_segment(
            pa.array([f"s{n}" for n in ids]), ids.astype(np.uint64), ids.astype(np.uint64),
            vectors[ids],
        )  # fmt: skip
        segments = with_added(segments, added)
        copied += len(segments[-1].row_ids)
    assert sum(len(part.row_ids) for part in segments) == 4000
    assert len(segments) <= 5
    assert copied < 4000 * (MERGED_ROWS / 40)


@pytest.mark.parametrize("cut", [(0, 12), (3, 7), (11, 12)])
def test_stacked_vectors_of_chunks_and_slices(cut: tuple[int, int]) -> None:
    vectors = unit_vectors(12, seed=1)
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 8)):
        column = pa.array(list(vectors), kind)
        chunks = pa.chunked_array([column.slice(0, 5), column.slice(5)])
        start, stop = cut
        expected = vectors[start:stop]
        np.testing.assert_array_equal(stacked_vectors(chunks.slice(start, stop - start)), expected)
