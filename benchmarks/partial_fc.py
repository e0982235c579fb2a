"""What sampling the classes saves: peak memory and time of a step of the product classifier, on one CPU process.

    python benchmarks/partial_fc.py --classes 2000000 --rows 384 --dim 128 --rate 0.1 --steps 2

Needs torch and numpy alone, and Linux. Each sample rate runs in a fresh process, whose peak is the kernel's own mark
(VmHWM), exact however short. Prints for sample rate 1 and for `--rate` the peak of making the classifier and of its
steps, the median times of forward, backward and optimizer after one step to warm up, and the ratios of the two.
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
    """Most memory that this process has had resident, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def step_times(
    args: argparse.Namespace, classifier: PartialFC, optimizer: torch.optim.Optimizer
) -> list[float]:
    """Seconds of the three parts of a step on random rows."""
    embeddings = torch.randn(args.rows, args.dim, requires_grad=True)
    labels = torch.randint(args.classes, (args.rows,))
    losses = []
    optimizer.zero_grad()
    forward = seconds(lambda: losses.append(classifier(embeddings, labels)))
    return [forward, seconds(losses.pop().backward), seconds(optimizer.step)]


def measure(args: argparse.Namespace, sample_rate: float) -> dict[str, float]:
    """One sample rate: GB at the peak, and median seconds of each part."""
    torch.manual_seed(0)
    bare = peak_gb()
    classifier = PartialFC(args.classes, args.dim, sample_rate=sample_rate)
    made = peak_gb()
    optimizer = build_classifier_optimizer(classifier, 1e-3)
    times = torch.tensor([step_times(args, classifier, optimizer) for _ in range(args.steps + 1)])[
        1:
    ]
    figures = dict(zip(PARTS, times.median(dim=0).values.tolist(), strict=True))
    return figures | {
        "step": times.sum(dim=1).median().item(),
        "bare": bare,
        "made": made,
        "peak": peak_gb(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument(
        "--rows", type=int, default=384, help="embeddings of a batch: 128 products of three domains"
    )
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="the sample rate beside 1")
    parser.add_argument("--steps", type=int, default=2, help="after one to warm up")
    args = parser.parse_args()
    use_huge_pages()

    centers_gb = args.classes * args.dim * 4e-9
    print(
        f"{args.classes:,} classes of {args.dim}, {args.rows} rows; all centres are {centers_gb:.2f} GB"
    )
    results = []
    for sample_rate in (1.0, args.rate):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (args, sample_rate))
        times = ", ".join(f"{part} {result[part]:.2f}" for part in PARTS)
        memory = f"{result['peak']:.2f} GB at the peak ({result['made']:.2f} once made, {result['bare']:.2f} bare Python)"
        print(
            f"rate {sample_rate:g}: {result['step']:.2f} s a step ({times}); {memory}", flush=True
        )
        results.append(result)
    full, sampled = results
    print(
        f"rate 1 over rate {args.rate:g}: step {full['step'] / sampled['step']:.1f}x, optimizer "
        f"{full['optimizer'] / sampled['optimizer']:.1f}x, peak memory {full['peak'] / sampled['peak']:.1f}x"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
