"""How long a call takes, and the rate of a bare matrix product to hold it against."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median time of a call after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def product_rate(device: str, dtype: torch.dtype, repeats: int) -> float:
    """FLOP/s of a bare square matrix product."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats, device)
