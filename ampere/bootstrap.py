"""Bootstrap confidence intervals, shared by the scores of summaries and of retrieval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CHUNK = 100  # draws at once, which bounds the memory
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Rate:
    """A rate with its 95 % confidence interval; 1 is 100 %. All NaN for a rate of nothing."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def resampled_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over bootstrap samples: as many rows as there are, drawn with replacement.

    The seed is fixed, so equal numbers of rows give equal draws. To compare models in pairs, pass
    the values of all of them at once.

    Args:
        values: float64 [N, ...], N at least 1.

    Returns:
        float64 [draws, ...].
    """
    count = len(values)
    rng, chunks = np.random.default_rng(0), []
    for start in range(0, DRAWS, CHUNK):
        weights = rng.multinomial(count, np.full(count, 1 / count), min(CHUNK, DRAWS - start))
        chunks.append(np.tensordot(weights.astype(np.float64), values, axes=(1, 0)))
    return np.concatenate(chunks)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds that hold 95 of 100 draws; NaN draws are ignored, and without others both are NaN.

    Args:
        draws: float64 [draws].
    """
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, PERCENTILES) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
