"""What our index costs beside plain FAISS with the same parameters; everything in one run, since machines are noisy.

    python benchmarks/index.py [--rows 1000000] [--dim 128] [--types flat ivf-flat ivf-pq hnsw] [--autofaiss PYTHON]

Clustered random vectors of length 1; queries about the same centres. For each type: time to build, against plain FAISS;
the least effort that reaches recall@10 of 0.99, its queries a second against exact search's; and what our wrapper
(shards, deltas, rows of the answers) adds to a batch of queries. `--autofaiss` names a Python that has autofaiss, which
is then asked for an index of the same memory.
"""

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ampere.config import IndexSettings
from ampere.records import Domain
from ampere.retrieval.index import SearchIndex
from ampere.retrieval.index_build import write_base
from ampere.retrieval.index_types import EFFORTS, build, factory, search, size_in_bytes
from ampere.retrieval.tuning import Truth

BATCH, K, TARGET = 256, 10, 0.99
AUTOFAISS = """
import sys, time, numpy as np
from autofaiss import build_index
vectors = np.load(sys.argv[1])
start = time.perf_counter()
build_index(vectors, save_on_disk=False, metric_type="ip", max_index_memory_usage=sys.argv[2], verbose=40)
print(time.perf_counter() - start)
"""


def clustered(rows: int, dim: int, queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors about one centre per hundred rows, and queries about the same centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, rows // 100), dim), dtype=np.float32)

    def draw(count: int) -> NDArray[np.float32]:
        found = rng.standard_normal((count, dim), dtype=np.float32)
        found *= 0.6
        found += centres[rng.integers(len(centres), size=count)]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    return draw(rows), draw(queries)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def plain_build(name: str, vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def queries_per_second(index: faiss.Index, queries: NDArray[np.float32], effort: int) -> float:
    batch = queries[:BATCH]
    search(index, batch, K, effort)
    return BATCH / min(timed(lambda: search(index, batch, K, effort)) for _ in range(3))


def wrapper_overhead(vectors: NDArray[np.float32], queries: NDArray[np.float32], kind: str) -> float:
    """Share that our folder's search adds to a batch over the same index searched bare."""
    rows = pa.table(
        {
            "sample_id": [f"s{i:08}" for i in range(len(vectors))],
            "product_id": [f"p{i // 5:07}" for i in range(len(vectors))],
            "domain": [str(Domain.PAGE)] * len(vectors),
            "vector": pa.ListArray.from_arrays(
                pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]), pa.array(vectors.ravel())
            ),
            "text": ["云岚薄荷控油洗发水 去屑"] * len(vectors),
            "media_uri": [f"pages/{i:08}.jpg" for i in range(len(vectors))],
            "fingerprint": [f"f{i}" for i in range(len(vectors))],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder), rows, IndexSettings(type=kind, target_recall=0.9), {})  # type: ignore[arg-type]
        ours = SearchIndex(Path(folder))
    (part,) = ours.parts[Domain.PAGE]
    batch = queries[:BATCH]
    bare = min(timed(lambda: search(part.index, batch, K, part.effort)) for _ in range(5))
    return min(timed(lambda: ours.search(batch, Domain.PAGE, K)) for _ in range(5)) / bare - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--types", nargs="+", choices=list(EFFORTS), default=list(EFFORTS))
    parser.add_argument(
        "--overhead", choices=list(EFFORTS), default="ivf-flat", help="type to measure the wrapper with"
    )
    parser.add_argument("--autofaiss", help="Python of an environment that has autofaiss")
    args = parser.parse_args()
    vectors, queries = clustered(args.rows, args.dim, 1000)
    exact = build("flat", vectors)
    truth, exact_rate = Truth(vectors, queries, exact), queries_per_second(exact, queries, 0)
    print(f"{args.rows:,} x {args.dim}; exact search {exact_rate:.0f} queries/s in batches of {BATCH}")
    for kind in args.types:
        start = time.perf_counter()
        index = build(kind, vectors)
        ours = time.perf_counter() - start
        bare = timed(partial(plain_build, factory(kind, *vectors.shape), vectors))
        trial = truth.least_effort(kind, index, TARGET, ours)
        rate = queries_per_second(index, queries, trial.effort)
        print(f"{trial}\n  plain / ours build {bare / ours:.2f}; {rate:.0f} queries/s, {rate / exact_rate:.1f}x exact")
        if args.autofaiss and kind == "ivf-flat":
            with tempfile.NamedTemporaryFile(suffix=".npy") as file:
                np.save(file.name, vectors)
                memory = f"{size_in_bytes(index) / 1e9:.2f}GB"
                command = [args.autofaiss, "-c", AUTOFAISS, file.name, memory]
                seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
            print(f"  autofaiss built in {seconds:.1f} s, {seconds / ours:.2f} of ours")
        del index
    print(f"our wrapper on {args.overhead}: {wrapper_overhead(vectors, queries, args.overhead):+.1%} of a batch")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
