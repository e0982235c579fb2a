"""Confidence intervals of retrieval measures, by a bootstrap over products.

The interval shows how far results would differ on another test set. Products are resampled, not
queries: a drawn product brings all of its queries, since the queries of one product succeed and
fail together. The galleries stay the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ampere.bootstrap import resampled_sums

# Products [A] and measures [A, M] of the queries of a task.
Queries = tuple[NDArray[np.str_], NDArray[np.float64]]


def resample(runs: Sequence[Mapping[str, Queries]]) -> NDArray[np.float64]:
    """Return means over the queries of as many products as there are, drawn with replacement.

    Args:
        runs: the queries of each task, for several models. All runs use the same draws, so that
            their differences are paired.

    Returns:
        float64 [draws, runs, tasks, measures]; NaN where a draw has no query.
    """
    names = {
        str(product)
        for run in runs
        for query_products, _ in run.values()
        for product in query_products
    }
    products = sorted(names) or [""]
    sums = np.stack(
        [np.stack([_sums(*queries, products) for queries in run.values()]) for run in runs]
    )
    totals = resampled_sums(np.moveaxis(sums, 2, 0))
    with np.errstate(invalid="ignore"):
        return totals[..., 1:] / totals[..., :1]


def _sums(
    query_products: NDArray[np.str_], values: NDArray[np.float64], products: Sequence[str]
) -> NDArray[np.float64]:
    """Return the number of queries and the sums of measures of each product, [P, 1 + M]."""
    places = np.searchsorted(np.array(products, dtype=str), query_products.astype(str))
    columns = [np.ones(len(query_products)), *values.T]
    return np.stack(
        [np.bincount(places, column, minlength=len(products)) for column in columns], axis=1
    )


def mean_over_tasks(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the tasks that have queries: [draws, runs, tasks] to [draws, runs]."""
    known = ~np.isnan(draws)
    with np.errstate(invalid="ignore"):
        return np.where(known, draws, 0).sum(axis=-1) / known.sum(axis=-1)
