"""Measure exact evaluation: ranks of many queries in a large gallery, and the bootstrap.

    python benchmarks/evaluate.py [--queries 31000] [--gallery 31000] [--device cuda]

Prints the seconds of one task's ranks, the share that the similarities take (float64 products, so
that equal vectors tie), the seconds of the bootstrap over six such tasks, and peak memory. With a
device it also ranks there. The exit status is 1 if the ranks on the device differ; there are no
other bars.
"""

import argparse
import resource
import time

import numpy as np

from ampere.bootstrap import DRAWS
from ampere.retrieval.bootstrap import resample
from ampere.retrieval.metrics import TASKS, Vectors, rank_queries, similarities

DIM, PER_PRODUCT = 128, 5


def random_vectors(rows: int, products: int, seed: int) -> Vectors:
    """Return unit vectors near their product's, so that ranks are neither all first nor random."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((products, DIM), dtype=np.float32)
    chosen = rng.integers(products, size=rows)
    vectors = centers[chosen] + 2 * rng.standard_normal((rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Vectors(vectors=vectors, products=np.array([f"p{i}" for i in chosen]))


def main() -> int:
    """Run the benchmark; return 1 if the ranks on the device differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=31_000)
    parser.add_argument("--gallery", type=int, default=31_000)
    parser.add_argument("--device", help="torch device to rank on as well")
    args = parser.parse_args()
    products = max(1, args.gallery // PER_PRODUCT)
    queries = random_vectors(args.queries, products, 1)
    gallery = random_vectors(args.gallery, products, 2)
    start = time.perf_counter()
    for _ in similarities(queries.vectors, gallery.vectors):
        pass
    similarities_s = time.perf_counter() - start
    start = time.perf_counter()
    ranking = rank_queries(queries, gallery)
    ranking_s = time.perf_counter() - start
    if args.device:
        # Warm up: kernels are loaded at their first use.
        rank_queries(random_vectors(100, 10, 1), gallery, device=args.device)
        start = time.perf_counter()
        on_device = rank_queries(queries, gallery, device=args.device)
        device_s = time.perf_counter() - start
        print(f"{args.device}: {device_s:.1f} s, {ranking_s / device_s:.1f} times as fast as numpy")
        if not (
            np.array_equal(ranking.first, on_device.first)
            and np.array_equal(ranking.precision, on_device.precision)
        ):
            print(f"the ranks on {args.device} differ from those of numpy; expected equal ranks")
            return 1
    values = ranking.values()
    start = time.perf_counter()
    resample([dict.fromkeys(TASKS, (queries.products[ranking.rows], values))])
    bootstrap_s = time.perf_counter() - start
    scores = values.mean(axis=0)
    print(
        f"{args.queries:,} queries in {args.gallery:,}: {ranking_s:.1f} s, "
        f"R@1 {scores[0]:.1f}, mAP {scores[-1]:.1f}"
    )
    print(f"of these for the similarities: {similarities_s / ranking_s:.0%}")
    print(f"bootstrap of {DRAWS:,} draws over {len(TASKS)} such tasks: {bootstrap_s:.1f} s")
    print(f"peak memory {1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
