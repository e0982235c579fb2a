"""Time calls, and a bare matrix product to compare them with."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds(device: str, repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median seconds of each call after a warm-up.

    The calls alternate, so that noise of the machine affects all alike.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, of_call in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            of_call.append(time.perf_counter() - start)
    return [statistics.median(of_call[1:]) for of_call in times]


def bare_product(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Return a call of a square matrix product, and its FLOP."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * side**3
