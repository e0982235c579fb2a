"""Compare our index with plain FAISS of the same parameters.

    python benchmarks/index.py [--rows 100000 300000 1000000] [--dim 128]
                               [--types flat ivf-flat ivf-pq hnsw] [--autofaiss FOLDER]

All is measured in one run, since machines are noisy. Vectors have length 1 and lie around
overlapping centers, in 24 dimensions of the `--dim`, with noise in all. Queries are drawn from the
same distribution, and are not those that an index is tuned and gated with. For each number of rows
and each type:

1. Build: ours (read the search table, write a base, pass the gate, publish) and plain FAISS (build,
   write) of the same factory string, from vectors in memory.
2. Recall@10 of the published index, its queries per second in batches, and those of exact search.
3. Overhead of our wrapper on a batch: against the same index searched by FAISS, and, with 1 % of
   the rows added and 1 % deleted since, against FAISS searching the base and then the added rows.
4. Memory in a process of its own: of our searcher with the ids of all rows and Lance's table, and
   of plain FAISS's index.

Above 300,000 rows, hnsw and ivf-pq are skipped unless `--types` names them: both are built twice,
which takes minutes. The whole run takes some ten minutes on two cores. Above 2 million rows nothing
is built twice, and the columns of plain FAISS are nan. `--autofaiss` is the folder of a separate
environment, created if missing. At the largest number of rows, up to 2 million, autofaiss gets the
memory of a plain ivf-flat index, uses its default limit of 10 ms per query, and is measured alike.
If it cannot be installed or finds no index, the reason is printed.

GB are 10^9 bytes. After all measurements the exit status is 1 if at the largest number of rows no
index of ours has recall@10 of 0.99 and 3 times the queries per second of exact search, if the
wrapper adds more than 5 % to a batch, or if an index failed the gate.
"""

import argparse
import gc
import math
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.compute as pc
from index_autofaiss import compare_autofaiss
from index_data import BATCH, Data, K, draw_data
from numpy.typing import NDArray
from search_tables import BenchmarkTable, base_segment, run_python
from timing import best_times, timed

from ampere.config.index import IndexSettings, IndexType
from ampere.records import Domain
from ampere.retrieval.index_types import SEARCH_EFFORTS, build, factory, search, set_blas_threshold

TARGET_RECALL = 0.99
FAST_TYPES: tuple[IndexType, ...] = ("flat", "ivf-flat")
SLOW_TYPES_MAX_ROWS = 300_000
PLAIN_MAX_ROWS = 2_000_000
MIN_GAIN, MAX_OVERHEAD = 3.0, 0.05
FAISS_BLAS_THRESHOLD = 128_000  # FAISS 1.15's default in queries x dimensions
MEMORY_SCRIPT = """
import sys, faiss, psutil
before = psutil.Process().memory_info().rss
index = faiss.read_index(sys.argv[1])
print(psutil.Process().memory_info().rss - before)
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of one type at one size; overheads are fractions."""

    rows: int
    kind: IndexType
    recall: float
    per_second: float
    gain: float
    base_overhead: float
    changed_overhead: float
    ours_s: float
    plain_s: float
    ours_gb: float
    plain_gb: float

    def __str__(self) -> str:
        return (
            f"{self.rows:>10,} {self.kind:<9}{self.recall:>10.4f}{self.per_second:>12,.0f}"
            f"{self.gain:>8.1f}x{self.base_overhead:>+9.1%}{self.changed_overhead:>+9.1%}"
            f"{self.ours_s:>9.1f}{self.plain_s:>9.1f}{self.plain_s / self.ours_s:>7.2f}"
            f"{self.ours_gb:>8.3f}{self.plain_gb:>8.3f}"
        )


HEADER = (
    f"{'rows':>10} {'type':<9}{'recall@10':>10}{'queries/s':>12}{'exact':>9}{'base':>9}"
    f"{'changed':>9}{'ours s':>9}{'plain s':>9}{'ratio':>7}{'ours GB':>8}{'FAISS':>8}"
)


def exact_times(index: faiss.Index, queries: NDArray[np.float32]) -> tuple[float, float]:
    """Return seconds of exact search for a batch, with our BLAS threshold and FAISS's default."""
    (ours_s,) = best_times(lambda: search(index, queries, K, 0))
    faiss.cvar.distance_compute_blas_threshold = FAISS_BLAS_THRESHOLD
    default_s = timed(lambda: search(index, queries, K, 0))
    set_blas_threshold()
    return ours_s, default_s


def build_plain(data: Data, kind: IndexType, file: Path) -> float:
    """Return the seconds of plain FAISS from vectors in memory to a file."""
    start = time.perf_counter()
    name = factory(kind, *data.pages.shape)
    index = faiss.index_factory(data.pages.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(data.pages)
    index.add(data.pages)
    faiss.write_index(index, str(file))
    return time.perf_counter() - start


def plain_bytes(file: Path) -> int:
    """Return the memory of FAISS's loaded index in a process of its own."""
    return int(run_python(MEMORY_SCRIPT, str(file)))


def measure(data: Data, kind: IndexType, exact_s: float) -> Measured:
    """Build, load and search an index of one type; see the module docstring.

    Raises:
        RuntimeError: it failed the gate.
        ValueError: an index of this type cannot reach the target recall.
    """
    with tempfile.TemporaryDirectory() as scratch:
        table = BenchmarkTable.of(Path(scratch) / "workspace", data.table)
        settings = IndexSettings(type=kind, target_recall=TARGET_RECALL)
        ours_s = timed(lambda: table.build(settings))
        (ours_bytes, _), plain_s, faiss_bytes = table.loaded_bytes(), math.nan, math.nan
        if len(data.pages) <= PLAIN_MAX_ROWS:
            file = Path(scratch) / "plain.faiss"
            plain_s, faiss_bytes = build_plain(data, kind, file), plain_bytes(file)
        searcher = table.searcher()
        ours = searcher.snapshot.domains[Domain.PAGE]
        recall = data.recall(ours.nearest(data.queries, K)[1])
        batch = data.queries[:BATCH]
        segment = base_segment(searcher)
        index, effort = segment.index, segment.search_effort
        bare_s, ours_batch_s = best_times(
            lambda: search(index, batch, K, effort), lambda: ours.nearest(batch, K)
        )
        table.append(data.new_rows)
        table.dataset.delete(pc.field("sample_id").isin(data.deleted))
        searcher.refresh()
        changed, added = searcher.snapshot.domains[Domain.PAGE], build("flat", data.added)
        bare_both_s, changed_s = best_times(
            lambda: (search(index, batch, K, effort), search(added, batch, K, 0)),
            lambda: changed.nearest(batch, K),
        )
    return Measured(
        rows=len(data.pages),
        kind=kind,
        recall=recall,
        per_second=BATCH / ours_batch_s,
        gain=exact_s / ours_batch_s,
        base_overhead=ours_batch_s / bare_s - 1,
        changed_overhead=changed_s / bare_both_s - 1,
        ours_s=ours_s,
        plain_s=plain_s,
        ours_gb=ours_bytes / 1e9,
        plain_gb=faiss_bytes / 1e9,
    )


def missed_bars(results: Sequence[Measured], rows: int, kinds: Sequence[str]) -> list[str]:
    """Return a line for each missed bar.

    Args:
        rows: the largest number of rows, whose gain over exact search counts.
        kinds: the types measured there.
    """
    lines = [
        f"{one.kind} at {one.rows:,}: the wrapper adds {overhead:.1%} to a batch of a {part}; "
        f"expected at most {MAX_OVERHEAD:.0%}"
        for one in results
        for part, overhead in (("base", one.base_overhead), ("changed base", one.changed_overhead))
        if overhead > MAX_OVERHEAD
    ]
    gains = [
        one.gain
        for one in results
        if one.kind != "flat" and one.rows == rows and one.recall >= TARGET_RECALL
    ]
    gain = max(gains, default=0.0)
    if list(kinds) != ["flat"] and gain < MIN_GAIN:
        lines.append(
            f"at {rows:,} rows the best index with recall@10 of {TARGET_RECALL} has {gain:.1f} "
            f"times the queries per second of exact search; expected at least {MIN_GAIN}"
        )
    return lines


def measure_all(
    data: Data, kinds: Sequence[IndexType], exact_s: float
) -> tuple[list[Measured], list[str]]:
    """Measure and print every type; return the measurements, and a line per failed gate."""
    results, failed = [], []
    for kind in kinds:
        gc.collect()
        try:
            results.append(measure(data, kind, exact_s))
            print(results[-1], flush=True)
        except ValueError as error:
            print(f"{len(data.pages):>10,} {kind}: {error}", flush=True)
        except RuntimeError as error:
            failed.append(f"{kind} at {len(data.pages):,}: {error}")
    return results, failed


def main() -> int:
    """Run the benchmark; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument(
        "--types",
        nargs="+",
        choices=list(SEARCH_EFFORTS),
        help="at every size (default: see above)",
    )
    parser.add_argument("--autofaiss", type=Path, help="folder of an environment with autofaiss")
    args = parser.parse_args()
    set_blas_threshold()
    results: list[Measured] = []
    missed: list[str] = []
    threads = faiss.omp_get_max_threads()
    print(f"{os.cpu_count()} cores, FAISS with {threads} threads, batches of {BATCH}\n{HEADER}")
    for rows in sorted(args.rows):
        data = draw_data(rows, args.dim)
        plain = build("flat", data.pages)
        exact_s, default_s = exact_times(plain, data.queries[:BATCH])
        del plain
        gain = f"{default_s / exact_s:.1f} times as fast as with FAISS's default BLAS threshold"
        print(f"{rows:>10,} exact search of plain FAISS {BATCH / exact_s:>19,.0f}  {gain}")
        kinds = args.types or list(SEARCH_EFFORTS if rows <= SLOW_TYPES_MAX_ROWS else FAST_TYPES)
        measured, failed = measure_all(data, kinds, exact_s)
        results += measured
        missed += failed
    plain_ivf_gb = [
        one.plain_gb
        for one in results
        if one.kind == "ivf-flat" and one.rows == rows <= PLAIN_MAX_ROWS
    ]
    if args.autofaiss and plain_ivf_gb:
        print(compare_autofaiss(args.autofaiss, data, plain_ivf_gb[0], exact_s))
    print(f"peak memory {1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB")
    missed += missed_bars(results, rows, kinds)
    print("\n".join(missed) or "no bar is missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
