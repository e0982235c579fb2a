"""Cosine distances of samples of one product and of different products (paper, figure 4)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.metrics import Vectors

PAIRS = 20_000


def product_distances(found: Mapping[Domain, Vectors]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances 1 - cosine of pairs of samples within a product and between products, at most `PAIRS` of each.

    The pairs are drawn evenly from all pairs of two samples, whatever their domains; the same ones each time.
    """
    vectors = np.concatenate([v.vectors for v in found.values() if len(v.products)])
    products = np.concatenate([v.products for v in found.values() if len(v.products)])
    rng = np.random.default_rng(0)
    order = np.argsort(products, kind="stable")
    groups = np.split(order, np.flatnonzero(products[order][1:] != products[order][:-1]) + 1)
    within = [np.stack(np.triu_indices(len(group), 1), axis=1) for group in groups]
    same = np.concatenate([group[pairs] for group, pairs in zip(groups, within, strict=True)])
    same = same[rng.permutation(len(same))[:PAIRS]]
    other = rng.integers(len(products), size=(4 * PAIRS, 2))
    other = other[products[other[:, 0]] != products[other[:, 1]]][:PAIRS]
    distances = [1 - np.einsum("nd,nd->n", vectors[pairs[:, 0]], vectors[pairs[:, 1]]) for pairs in (same, other)]
    return distances[0], distances[1]


def overlap(within: NDArray[np.float32], between: NDArray[np.float32]) -> float:
    """Share in percent of pairs within a product that lie farther apart than a pair between products; 50 is chance.

    >>> overlap(np.array([0.1, 0.5]), np.array([0.3, 0.9]))
    25.0
    """
    below = np.searchsorted(np.sort(between), within)
    return 100 * float(below.mean()) / max(1, len(between))
