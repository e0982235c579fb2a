"""Measure what sampled classes save: memory and time of a step of the product classifier.

    python benchmarks/partial_fc.py --classes 2000000 --rows 384 --dim 128 --rate 0.1 --steps 2

Requires only torch and numpy, and Linux. Each sample rate runs on the CPU in a process of its own,
whose peak memory is the kernel's high-water mark (VmHWM), exact even for short peaks. Prints for
sample rate 1 and for `--rate` the peak after creating the classifier and after its steps, the
median times of forward, backward and optimizer after a warm-up step, and the ratios of the two.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ampere.huge_pages import use_huge_pages
from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer

PARTS = ("forward", "backward", "optimizer")


def peak_gb() -> float:
    """Return the peak resident memory of this process in 10^9 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def step_times(
    args: argparse.Namespace, classifier: PartialFC, optimizer: torch.optim.Optimizer
) -> list[float]:
    """Return the seconds of each of `PARTS` of a step on random rows."""
    embeddings = torch.randn(args.rows, args.dim, requires_grad=True)
    labels = torch.randint(args.classes, (args.rows,))
    losses = []
    optimizer.zero_grad()
    forward = seconds(lambda: losses.append(classifier(embeddings, labels)))
    return [forward, seconds(losses.pop().backward), seconds(optimizer.step)]


def measure(args: argparse.Namespace, sample_rate: float) -> dict[str, float]:
    """Return GB and median seconds by name for one sample rate."""
    torch.manual_seed(0)
    bare_gb = peak_gb()
    classifier = PartialFC(args.classes, args.dim, sample_rate=sample_rate)
    created_gb = peak_gb()
    optimizer = build_classifier_optimizer(classifier, 1e-3)
    steps = [step_times(args, classifier, optimizer) for _ in range(args.steps + 1)]
    times = torch.tensor(steps[1:])
    medians = dict(zip(PARTS, times.median(dim=0).values.tolist(), strict=True))
    return medians | {
        "step": times.sum(dim=1).median().item(),
        "bare_gb": bare_gb,
        "created_gb": created_gb,
        "peak_gb": peak_gb(),
    }


def main() -> int:
    """Run the benchmark; there are no bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument(
        "--rows", type=int, default=384, help="embeddings per batch: 128 products of three domains"
    )
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="sample rate to compare with 1")
    parser.add_argument("--steps", type=int, default=2, help="after a warm-up step")
    args = parser.parse_args()
    use_huge_pages()

    centers_gb = args.classes * args.dim * 4e-9
    print(
        f"{args.classes:,} classes of {args.dim} dimensions, {args.rows} rows; "
        f"the class centers take {centers_gb:.2f} GB"
    )
    results = []
    for sample_rate in (1.0, args.rate):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (args, sample_rate))
        times = ", ".join(f"{part} {result[part]:.2f}" for part in PARTS)
        memory = (
            f"{result['peak_gb']:.2f} GB at the peak ({result['created_gb']:.2f} after creating "
            f"the classifier, {result['bare_gb']:.2f} before)"
        )
        print(
            f"rate {sample_rate:g}: {result['step']:.2f} s per step ({times}); {memory}", flush=True
        )
        results.append(result)
    full, sampled = results
    print(
        f"rate 1 / rate {args.rate:g}: step {full['step'] / sampled['step']:.1f}x, "
        f"optimizer {full['optimizer'] / sampled['optimizer']:.1f}x, "
        f"peak memory {full['peak_gb'] / sampled['peak_gb']:.1f}x"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
