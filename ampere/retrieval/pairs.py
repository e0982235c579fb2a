"""Cosine distances of samples of one product and of different products (paper, figure 4)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.metrics import Vectors

PAIRS = 20_000


def product_distances(
    found: Mapping[Domain, Vectors],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances 1 - cosine of pairs of samples within a product and between products, at most `PAIRS` of each.

    The pairs are drawn evenly from all pairs of two samples, whatever their domains; the same ones each time.
    """
    vectors = np.concatenate([v.vectors for v in found.values() if len(v.products)])
    products = np.concatenate([v.products for v in found.values() if len(v.products)])
    rng = np.random.default_rng(0)
    order = np.argsort(products, kind="stable")
    _, sizes = np.unique(products, return_counts=True)
    same = order[drawn_pairs(sizes, rng)]
    other = rng.integers(len(products), size=(4 * PAIRS, 2))
    other = other[products[other[:, 0]] != products[other[:, 1]]][:PAIRS]
    distances = [
        1 - np.einsum("nd,nd->n", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
        for pairs in (same, other)
    ]
    return distances[0], distances[1]


def drawn_pairs(sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Pairs of two places within one group, at most `PAIRS` of them, none twice.

    Of a group of 50,000, a placeholder product perhaps, all pairs would take gigabytes; so they are numbered, and those
    drawn are worked out of their numbers.

    Args:
        sizes: int64 [G], of groups that stand one after the other.

    Returns:
        int64 [P, 2].
    """
    pairs = sizes * (sizes - 1) // 2
    ends = np.cumsum(pairs)
    numbers = (
        rng.choice(ends[-1], min(PAIRS, ends[-1]), replace=False)
        if ends[-1]
        else np.zeros(0, np.int64)
    )
    group = np.searchsorted(ends, numbers, side="right")
    number = numbers - (ends - pairs)[group]
    # A pair (i, j) of i < j has the number j (j - 1) / 2 + i; rounding may put j one off.
    j = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > number
    j += j * (j + 1) // 2 <= number
    i = number - j * (j - 1) // 2
    return (np.cumsum(sizes) - sizes)[group][:, None] + np.stack([i, j], axis=1)


def overlap(within: NDArray[np.float32], between: NDArray[np.float32]) -> float:
    """Share in percent of pairs within a product that lie farther apart than a pair between products; 50 is chance.

    >>> overlap(np.array([0.1, 0.5]), np.array([0.3, 0.9]))
    25.0
    """
    below = np.searchsorted(np.sort(between), within)
    return 100 * float(below.mean()) / max(1, len(between))
