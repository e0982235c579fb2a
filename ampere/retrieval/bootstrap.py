"""How far results would differ on another test set: a bootstrap over products.

A drawn product brings all of its queries along, since those of one product succeed and fail together. The galleries
stay as they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CHUNK = 100  # draws at once
PERCENTILES = (2.5, 97.5)

Queries = tuple[
    NDArray[np.str_], NDArray[np.float64]
]  # products [A] and measures [A, M] of a task's queries


def resample(runs: Sequence[Mapping[str, Queries]]) -> NDArray[np.float64]:
    """Means over the queries of as many products as there are, drawn with replacement.

    Args:
        runs: each task's queries, for several models; all runs are drawn alike, so that their differences are paired.

    Returns:
        float64 [draws, runs, tasks, measures]; NaN where a draw has no query.
    """
    products = sorted(
        {str(product) for run in runs for asked, _ in run.values() for product in asked}
    ) or [""]
    sums = np.stack(
        [np.stack([_sums(*queries, products) for queries in run.values()]) for run in runs]
    )
    rng, parts = np.random.default_rng(0), []
    for start in range(0, DRAWS, CHUNK):
        size = min(CHUNK, DRAWS - start)
        draws = rng.multinomial(len(products), np.full(len(products), 1 / len(products)), size)
        parts.append(np.tensordot(draws.astype(np.float64), sums, axes=(1, 2)))
    totals = np.concatenate(parts)
    with np.errstate(invalid="ignore"):
        return totals[..., 1:] / totals[..., :1]


def _sums(
    asked: NDArray[np.str_], values: NDArray[np.float64], products: Sequence[str]
) -> NDArray[np.float64]:
    """Number of queries and sums of measures of each product, [P, 1 + M]."""
    places = np.searchsorted(np.array(products, dtype=str), asked.astype(str))
    columns = [np.ones(len(asked)), *values.T]
    return np.stack(
        [np.bincount(places, column, minlength=len(products)) for column in columns], axis=1
    )


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds that hold 95 of 100 draws, [draws]; NaN where all are."""
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, PERCENTILES) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def mean_over_tasks(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the tasks that have queries, [draws, runs], of one measure [draws, runs, tasks]."""
    known = ~np.isnan(draws)
    with np.errstate(invalid="ignore"):
        return np.where(known, draws, 0).sum(axis=-1) / known.sum(axis=-1)
