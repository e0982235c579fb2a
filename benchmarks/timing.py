"""Times of calls: the best of alternating ones, and percentiles of single ones."""

import time
from collections.abc import Callable, Iterable

import numpy as np

MIN_SECONDS, MIN_ROUNDS = 12.0, 5


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def best_times(*calls: Callable[[], object]) -> list[float]:
    """Return the shortest time of each call after a warm-up.

    The calls alternate, so that noise of the machine affects all alike.
    """
    times: list[list[float]] = [[] for _ in calls]
    stop = time.perf_counter() + MIN_SECONDS
    while time.perf_counter() < stop or len(times[0]) <= MIN_ROUNDS:
        for call, of_call in zip(calls, times, strict=True):
            of_call.append(timed(call))
    return [min(of_call[1:]) for of_call in times]


def percentiles(seconds: Iterable[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile in milliseconds."""
    p50, p99 = np.percentile(list(seconds), [50, 99]) * 1000
    return float(p50), float(p99)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the median milliseconds of a call."""
    return percentiles([timed(call) for _ in range(repeats)])[0]
