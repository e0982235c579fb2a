"""What a catalog lacks and what looks wrong in it, on neighbors worked out by hand."""

import numpy as np

from ampere.records import Domain
from ampere.retrieval.coverage import (
    Doubtful,
    Duplicate,
    Neighbors,
    doubtful_products,
    missing_products,
    near_duplicates,
)

PAGE, SHORT, LIVE = Domain.PAGE, Domain.SHORT, Domain.LIVE
IDS = ["a", "b", "c", "d", "e"]
PRODUCTS = ["mug", "mug", "pen", "mug", None]
DOMAINS = [PAGE, SHORT, PAGE, PAGE, PAGE]
NEIGHBORS = Neighbors(
    np.array([[3, 1, 2], [0, 3, 2], [0, 1, 4], [0, 1, -1], [2, 0, 1]]),
    np.array(
        [
            [0.99, 0.98, 0.2],
            [0.98, 0.97, 0.1],
            [0.9, 0.8, 0.7],
            [0.99, 0.9, -np.inf],
            [0.7, 0.6, 0.5],
        ],
        np.float32,
    ),
)


def test_products_without_a_domain() -> None:
    assert missing_products(PRODUCTS, DOMAINS) == {
        PAGE: [],
        SHORT: ["pen"],
        LIVE: ["mug", "pen"],
    }


def test_near_duplicates_are_pairs_of_one_domain() -> None:
    found = near_duplicates(IDS, PRODUCTS, DOMAINS, NEIGHBORS, 0.7)
    assert [(pair.first, pair.second, pair.same_product) for pair in found] == [
        ("a", "d", True),  # each has the other, and it is one pair; "b" is a short
        ("a", "c", False),
        ("c", "e", None),
    ]
    assert found[0] == Duplicate("a", "d", np.float32(0.99), True)
    assert near_duplicates(IDS, PRODUCTS, DOMAINS, NEIGHBORS, 0.995) == []


def test_sample_is_doubtful_if_all_neighbors_agree_on_another_product() -> None:
    (found,) = doubtful_products(IDS, PRODUCTS, NEIGHBORS, 2)
    assert found == Doubtful("c", "pen", "mug", np.mean(np.float32([0.9, 0.8]), dtype=float))
    # "e" has no product; as the third neighbor of "c" it says nothing, so only two agree.
    assert doubtful_products(IDS, PRODUCTS, NEIGHBORS, 3) == []
