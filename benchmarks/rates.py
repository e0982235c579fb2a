"""How long calls take, and a bare matrix product to hold them against."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds(device: str, repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Median time of each call after one to warm up; they take turns, for a machine's slow minute to be one for all."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def bare_product(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A square matrix product, and its FLOP."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * side**3
