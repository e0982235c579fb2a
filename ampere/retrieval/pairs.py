"""Cosine distances of samples of one product and of different products (paper, figure 4)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.metrics import Vectors

PAIRS = 20_000


def product_distances(
    by_domain: Mapping[Domain, Vectors],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return distances 1 - cosine of pairs within a product and between products.

    The pairs, at most `PAIRS` of each, are drawn uniformly from all pairs of two samples of any
    domains; the same ones in every run.
    """
    domains = [domain for domain in by_domain.values() if len(domain.products)]
    vectors = np.concatenate([domain.vectors for domain in domains])
    products = np.concatenate([domain.products for domain in domains])
    rng = np.random.default_rng(0)
    order = np.argsort(products, kind="stable")
    _, sizes = np.unique(products, return_counts=True)
    same = order[draw_pairs(sizes, rng)]
    other = rng.integers(len(products), size=(4 * PAIRS, 2))
    other = other[products[other[:, 0]] != products[other[:, 1]]][:PAIRS]
    within, between = (
        1 - np.einsum("nd,nd->n", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
        for pairs in (same, other)
    )
    return within, between


def draw_pairs(sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw pairs of two rows of one group without replacement, at most `PAIRS`.

    A group of 50,000, such as a placeholder product, has 10^9 pairs, which would take gigabytes.
    So the pairs of all groups are numbered, numbers are drawn, and each pair is computed from its
    number. Groups of 3 and 2 rows have the pairs (0, 1), (0, 2), (1, 2) and (3, 4), numbered 0 to
    3; number 3 is pair 0 of the second group, whose first row is 3.

    Args:
        sizes: int64 [G], of groups of consecutive rows.

    Returns:
        int64 [P, 2], row numbers, the lower one first.
    """
    pairs = sizes * (sizes - 1) // 2
    ends = np.cumsum(pairs)
    if not ends[-1]:
        return np.zeros((0, 2), np.int64)
    numbers = rng.choice(ends[-1], min(PAIRS, ends[-1]), replace=False)
    group = np.searchsorted(ends, numbers, side="right")
    first_pair, first_row = ends - pairs, np.cumsum(sizes) - sizes
    return first_row[group][:, None] + numbered_pairs(numbers - first_pair[group])


def numbered_pairs(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs (i, j) of i < j with these numbers, int64 [P, 2].

    A pair has the number j (j - 1) / 2 + i:

    >>> numbered_pairs(np.arange(4)).tolist()
    [[0, 1], [0, 2], [1, 2], [0, 3]]
    """
    j = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    # The square root of large numbers is rounded, so j may be off by one.
    j -= j * (j - 1) // 2 > numbers
    j += j * (j + 1) // 2 <= numbers
    return np.stack([numbers - j * (j - 1) // 2, j], axis=1)


def overlap(within: NDArray[np.float32], between: NDArray[np.float32]) -> float:
    """Return the percentage of wrongly ordered distances; 50 is chance.

    It is the share of (within, between) pairs of distances in which the samples of one product are
    farther apart than those of two products.

    >>> overlap(np.array([0.1, 0.5]), np.array([0.3, 0.9]))
    25.0
    """
    below = np.searchsorted(np.sort(between), within)
    return 100 * float(below.mean()) / max(1, len(between))
