"""What exact evaluation costs: ranks of all right answers of many queries in a large gallery, and the intervals.

    python benchmarks/evaluate.py [--queries 31000] [--gallery 31000] [--device cuda]

Prints seconds of one task's ranks and how much of them the similarities take (a product of float64, so that equals
tie); seconds of the bootstrap over six such tasks; and peak memory. With a device, the same ranks on it, which must be
equal. There is no other bar to miss.
"""

import argparse
import resource
import time

import numpy as np

from ampere.retrieval.bootstrap import DRAWS, resample
from ampere.retrieval.metrics import TASKS, Vectors, rank_queries, similarities

DIM, PER_PRODUCT = 128, 5


def random_vectors(rows: int, products: int, seed: int) -> Vectors:
    """Unit vectors near their product's, so that ranks are neither all first nor random."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((products, DIM), dtype=np.float32)
    chosen = rng.integers(products, size=rows)
    found = centres[chosen] + 2 * rng.standard_normal((rows, DIM), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return Vectors(vectors=found, products=np.array([f"p{i}" for i in chosen]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=31_000)
    parser.add_argument("--gallery", type=int, default=31_000)
    parser.add_argument("--device", help="torch's name of a device to rank on, too")
    args = parser.parse_args()
    products = max(1, args.gallery // PER_PRODUCT)
    queries, gallery = (
        random_vectors(args.queries, products, 1),
        random_vectors(args.gallery, products, 2),
    )
    start = time.perf_counter()
    for _ in similarities(queries.vectors, gallery.vectors):
        pass
    bare = time.perf_counter() - start
    start = time.perf_counter()
    ranking = rank_queries(queries, gallery)
    whole = time.perf_counter() - start
    if args.device:
        rank_queries(
            random_vectors(100, 10, 1), gallery, device=args.device
        )  # kernels are loaded at their first use
        start = time.perf_counter()
        theirs = rank_queries(queries, gallery, device=args.device)
        print(f"numpy's time / {args.device}'s {whole / (time.perf_counter() - start):.1f}")
        if not (
            np.array_equal(ranking.first, theirs.first)
            and np.array_equal(ranking.precision, theirs.precision)
        ):
            print(f"the ranks on {args.device} are others")
            return 1
    values = ranking.values()
    start = time.perf_counter()
    resample([dict.fromkeys(TASKS, (queries.products[ranking.rows], values))])
    drawn = time.perf_counter() - start
    scores = values.mean(axis=0)
    print(
        f"{args.queries:,} queries in {args.gallery:,}: {whole:.1f} s, R@1 {scores[0]:.1f}, mAP {scores[-1]:.1f}"
    )
    print(f"similarities / whole {bare / whole:.2f}")
    print(f"bootstrap of {DRAWS:,} draws over {len(TASKS)} such tasks: {drawn:.1f} s")
    print(f"peak memory {1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
