from itertools import combinations

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval.metrics import Vectors
from ampere.retrieval.pairs import PAIRS, draw_pairs, overlap, product_distances


def of(rows: list[list[float]], products: str) -> Vectors:
    return Vectors(
        vectors=np.array(rows, np.float32).reshape(-1, 2), products=np.array(list(products), "U1")
    )


def test_pairs_by_hand() -> None:
    """The samples of a have distance 0.4, those of b are opposite; c has one sample, so no pair."""
    by_domain = {
        Domain.PAGE: of([[1, 0], [0, 1], [1, 0]], "abc"),
        Domain.SHORT: of([[0.6, 0.8]], "a"),
        Domain.LIVE: of([[0, -1]], "b"),
    }
    within, between = product_distances(by_domain)
    assert sorted(within.tolist()) == pytest.approx([0.4, 2])
    # a-b 1, 1, 0.2, 1.8; a-c 0, 0.4; b-c 1, 1: eight pairs, drawn many times over
    assert sorted(set(between.round(4).tolist())) == pytest.approx([0, 0.2, 0.4, 1, 1.8])
    assert len(between) == PAIRS


def test_all_pairs_are_drawn_if_there_are_few() -> None:
    pairs = draw_pairs(np.array([3, 1, 2, 120]), np.random.default_rng(0))
    expected = {(0, 1), (0, 2), (1, 2), (4, 5)} | set(combinations(range(6, 126), 2))
    assert len(pairs) == len(expected) and set(map(tuple, pairs.tolist())) == expected
    assert draw_pairs(np.array([1, 1]), np.random.default_rng(0)).shape == (0, 2)


def test_pairs_of_a_huge_group_need_little_memory() -> None:
    """It has 5e11 pairs; a list of them all would take terabytes."""
    pairs = draw_pairs(np.array([1_000_000, 2]), np.random.default_rng(0))
    assert pairs.shape == (PAIRS, 2)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == PAIRS
    assert pairs.min() >= 0 and 900_000 < pairs.max() < 1_000_002


def test_overlap_by_hand() -> None:
    between = np.array([0.9, 0.3])
    assert overlap(np.array([0.1, 0.5]), between) == 25
    assert overlap(np.array([1.0]), between) == 100 and overlap(np.array([0.0]), between) == 0
