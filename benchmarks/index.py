"""What our index costs beside plain FAISS with the same parameters; everything in one run, since machines are noisy.

    python benchmarks/index.py [--rows 100000 300000 1000000] [--dim 128] [--types flat ivf-flat ivf-pq hnsw]
                               [--autofaiss FOLDER]

Vectors of length 1 about centres that overlap, in 24 dimensions of the `--dim`, with noise in all; the queries are
drawn alike and are others than those that an index is tuned and gated with. For each number of rows and each type:

1. build: ours (write a base, pass the gate, publish) beside plain FAISS (build, write) by the same name of FAISS's own.
2. recall@10 of what was published, on fresh queries, and its queries a second in batches beside exact search's.
3. what our wrapper adds to a batch: over the same index searched bare, and, with a delta of 1 % new and 1 % gone, over
   the base and the new rows searched bare one after the other.
4. memory that the loaded index takes in a process of its own, ours with the rows of the answers, and plain FAISS.

Beyond 300,000 rows, hnsw and ivf-pq are left out unless `--types` names them, for both are built twice, in minutes; so
the whole takes some ten minutes on two cores. Beyond 2 million rows nothing is built twice, and plain FAISS's columns
are nan. `--autofaiss` is a folder for an environment of its own, made where there is none; at the most rows, up to 2
million, autofaiss is given the memory of a plain ivf-flat index, keeps its own limit of 10 ms a query, and is measured
alike. If it cannot be installed or finds no index, that is said, and nothing is timed.

GB are 10^9 bytes. Exits with 1, after all figures, where no index of ours at the most rows has recall@10 of 0.99 and
answers 3 times as many queries as exact search, where the wrapper adds more than 5 % to a batch, or where an index did
not pass the gate.
"""

import argparse
import gc
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from ampere.config.index import IndexSettings, IndexType
from ampere.pipeline.index import write_version
from ampere.records import Domain
from ampere.retrieval.index import SearchIndex
from ampere.retrieval.index_build import write_delta
from ampere.retrieval.index_types import EFFORTS, SAME, build, factory, search
from ampere.store.indexes import set_current
from ampere.store.workspace import Workspace

BATCH, K, TARGET = 256, 10, 0.99
# Fresh queries, and those that the index is tuned and gated with: another domain, too small for more than exact search.
ASKED, TUNED = 1000, 600
FAST: tuple[IndexType, ...] = ("flat", "ivf-flat")
SLOW_ROWS = 300_000  # up to which the other types are built too
PLAIN_ROWS = 2_000_000  # up to which plain FAISS builds the same beside ours
SECONDS, ROUNDS = 12.0, 5  # of timing, at least
LEAST_GAIN, MOST_OVERHEAD = 3.0, 0.05
FAISS_BOUND = 128_000  # queries times dimensions from which FAISS 1.15, left alone, compares by one matrix product
HELD = """
import sys
from pathlib import Path
import faiss, psutil
from ampere.retrieval.index import SearchIndex
path, before = Path(sys.argv[1]), psutil.Process().memory_info().rss
index = SearchIndex(path) if path.is_dir() else faiss.read_index(str(path))
print(psutil.Process().memory_info().rss - before)
"""
AUTOFAISS = """
import json, sys, time
import numpy as np
from autofaiss import build_index
vectors, asked, places, most, free, cores = sys.argv[1:]
vectors, asked = np.load(vectors), np.load(asked)
start = time.perf_counter()
index, about = build_index(vectors, save_on_disk=False, metric_type="ip", max_index_memory_usage=most,
                           current_memory_available=free, nb_cores=int(cores), verbose=40)
build_s, times = time.perf_counter() - start, []
if index is None:
    sys.exit("autofaiss found no index for this memory")
for _ in range(8):
    start = time.perf_counter()
    index.search(asked[:256], 10)
    times.append(time.perf_counter() - start)
np.save(places, index.search(asked, 10)[1])
name = f"{about['index_key']} {about['index_param']}"
print(json.dumps({"name": name, "build_s": build_s, "batch_s": min(times)}))
"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Vectors of length 1 and a table of them, as the index stage reads it.

    Attributes:
        pages: float32 [N, D].
        table: the pages, and `TUNED` shorts, which an index of pages is tuned and gated with.
        changed: the same with a hundredth of the pages gone and as many new ones.
        came: float32 [N // 100, D], those new ones.
        asked: float32 [ASKED, D], queries that no index has seen.
        exact: float32 [ASKED, K], the pages' similarities to them.
    """

    pages: NDArray[np.float32]
    table: pa.Table
    changed: pa.Table
    came: NDArray[np.float32]
    asked: NDArray[np.float32]
    exact: NDArray[np.float32]

    def recall(self, places: NDArray[np.int64]) -> float:
        """Recall@10 of places [ASKED, K] among the pages; ties count as found."""
        found = np.einsum("qd,qkd->qk", self.asked, self.pages[places])
        return float(((places >= 0) & (found >= self.exact[:, -1:] - SAME)).mean())


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one type at one size; shares are of 1."""

    rows: int
    kind: IndexType
    recall: float
    per_second: float
    gain: float
    base_overhead: float
    delta_overhead: float
    ours_s: float
    plain_s: float
    ours_gb: float
    plain_gb: float

    def __str__(self) -> str:
        return (
            f"{self.rows:>10,} {self.kind:<9}{self.recall:>10.4f}{self.per_second:>12,.0f}{self.gain:>8.1f}x"
            f"{self.base_overhead:>+9.1%}{self.delta_overhead:>+9.1%}{self.ours_s:>9.1f}{self.plain_s:>9.1f}"
            f"{self.plain_s / self.ours_s:>7.2f}{self.ours_gb:>8.3f}{self.plain_gb:>8.3f}"
        )


HEADER = (
    f"{'rows':>10} {'type':<9}{'recall@10':>10}{'queries/s':>12}{'exact':>9}{'base':>9}{'delta':>9}"
    f"{'ours s':>9}{'plain s':>9}{'ratio':>7}{'ours GB':>8}{'FAISS':>8}"
)


def draw_data(rows: int, dim: int) -> Data:
    """Random data, the same each time."""
    new = rows // 100
    vectors = draw_vectors(rows + new + TUNED + ASKED, rows // 50, dim)
    pages, came, tuned, asked = np.split(vectors, np.cumsum([rows, new, TUNED]))
    shorts = table_of(tuned, Domain.SHORT)
    stays = np.arange(rows) % 100 > 0
    table = table_of(vectors[: rows + new], Domain.PAGE)
    changed = pa.concat_tables([table.slice(0, rows).filter(stays), table.slice(rows), shorts])
    asked = np.ascontiguousarray(asked)
    exact, _ = faiss.knn(asked, pages, K, metric=faiss.METRIC_INNER_PRODUCT)
    return Data(
        pages=pages, table=pa.concat_tables([table.slice(0, rows), shorts]), changed=changed, came=came, asked=asked,
        exact=exact,
    )  # fmt: skip


def draw_vectors(count: int, centres: int, dim: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((24, dim), dtype=np.float32)
    middle = rng.standard_normal((centres, 24), dtype=np.float32)
    found = np.empty((count, dim), np.float32)
    for start in range(0, count, 100_000):
        part = found[start : start + 100_000]
        inner = middle[rng.integers(centres, size=len(part))]
        inner += 0.7 * rng.standard_normal(inner.shape, dtype=np.float32)
        part[:] = inner @ spread + 0.3 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def table_of(vectors: NDArray[np.float32], domain: Domain) -> pa.Table:
    """The rows of a domain, the vectors not copied."""
    count, dim = vectors.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
    return pa.table(
        {
            "sample_id": [f"{domain}{i:08}" for i in range(count)],
            "product_id": [f"p{i // 5:07}" for i in range(count)],
            "domain": [str(domain)] * count,
            "vector": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
            "text": ["云岚薄荷控油洗发水 去屑"] * count,
            "media_uri": [f"{domain}/{i:08}.jpg" for i in range(count)],
            "fingerprint": [f"{domain}{i}" for i in range(count)],
        }
    )


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def best_times(*runs: Callable[[], object]) -> list[float]:
    """The shortest time of each, measured in turns, so that all meet the same noise."""
    times: list[list[float]] = [[] for _ in runs]
    stop = time.perf_counter() + SECONDS
    while time.perf_counter() < stop or len(times[0]) <= ROUNDS:
        for run, found in zip(runs, times, strict=True):
            found.append(timed(run))
    return [min(found[1:]) for found in times]  # the first is a warm-up


def exact_times(index: faiss.Index, asked: NDArray[np.float32]) -> list[float]:
    """Seconds of a batch's exact search as our index module sets FAISS, and of one as FAISS 1.15 sets itself."""
    (best,) = best_times(lambda: search(index, asked, K, 0))
    ours, faiss.cvar.distance_compute_blas_threshold = (
        faiss.cvar.distance_compute_blas_threshold,
        FAISS_BOUND,
    )
    own = timed(lambda: search(index, asked, K, 0))
    faiss.cvar.distance_compute_blas_threshold = ours
    return [best, own]


def build_ours(data: Data, kind: IndexType, folder: Path) -> tuple[float, Path]:
    """Seconds from rows in memory to a version that is published, and its folder.

    Raises:
        RuntimeError: it did not pass the gate.
        ValueError: such an index does not reach the target at all.
    """
    workspace, scratch = Workspace.create(folder / "workspace"), folder / "scratch"
    scratch.mkdir()
    start = time.perf_counter()
    write_version(
        scratch / "v000001",
        None,
        data.table,
        IndexSettings(type=kind, target_recall=TARGET),
        {"model": "m"},
    )
    where = workspace.publish(scratch / "v000001", "indexes/m/v000001", last="index.json")
    set_current(workspace, "m", "v000001")
    return time.perf_counter() - start, Path(where)


def build_plain(data: Data, kind: IndexType, file: Path) -> float:
    """Seconds of plain FAISS from vectors in memory to a file."""
    start = time.perf_counter()
    name = factory(kind, *data.pages.shape)
    index = faiss.index_factory(data.pages.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(data.pages)
    index.add(data.pages)
    faiss.write_index(index, str(file))
    return time.perf_counter() - start


def held_gb(path: Path) -> float:
    """What an index takes in a process that loads nothing else."""
    found = subprocess.run(
        [sys.executable, "-c", HELD, str(path)], check=True, capture_output=True, text=True
    )
    return int(found.stdout) / 1e9


def measure(data: Data, kind: IndexType, exact_s: float) -> Measured:
    """Build, load and search one type; for the figures see the head of this file.

    Raises:
        RuntimeError, ValueError: see `build_ours`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        ours_s, folder = build_ours(data, kind, Path(scratch))
        file = Path(scratch) / "plain.faiss"
        ours_gb, plain_s, plain_gb = held_gb(folder), math.nan, math.nan
        if len(data.pages) <= PLAIN_ROWS:
            plain_s, plain_gb = build_plain(data, kind, file), held_gb(file)
        ours = SearchIndex(folder)
        ((_, part),) = ours.shelves[Domain.PAGE].parts
        index, effort = part.index, part.effort
        batch, recall = (
            data.asked[:BATCH],
            data.recall(ours.search(data.asked, Domain.PAGE, K).places),
        )
        bare_s, ours_batch_s = best_times(
            lambda: search(index, batch, K, effort), lambda: ours.search(batch, Domain.PAGE, K)
        )
        delta = folder.parent / "v000002"
        delta.mkdir()
        write_delta(delta, folder, data.changed, {"model": "m"})
        beside, came = SearchIndex(delta), build("flat", data.came)
        bare_both_s, beside_s = best_times(
            lambda: (search(index, batch, K, effort), search(came, batch, K, 0)),
            lambda: beside.search(batch, Domain.PAGE, K),
        )
    return Measured(
        rows=len(data.pages), kind=kind, recall=recall, per_second=BATCH / ours_batch_s, gain=exact_s / ours_batch_s,
        base_overhead=ours_batch_s / bare_s - 1, delta_overhead=beside_s / bare_both_s - 1, ours_s=ours_s,
        plain_s=plain_s, ours_gb=ours_gb, plain_gb=plain_gb,
    )  # fmt: skip


def autofaiss_python(folder: Path) -> Path:
    """Python of an environment that has autofaiss, made where there is none.

    Raises:
        subprocess.CalledProcessError: it cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        run_quietly([sys.executable, "-m", "venv", str(folder)])
        # autofaiss 2.18 wants NumPy 1, for which the newest pyarrow is too new, and fails on FAISS 1.15.
        wanted = ["autofaiss", "pyarrow<22", "faiss-cpu<1.12"]
        run_quietly(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        )
    run_quietly([str(python), "-c", "import autofaiss"])
    return python


def run_quietly(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def beside_autofaiss(folder: Path, data: Data, memory_gb: float, exact_s: float) -> str:
    """What autofaiss makes of the same vectors in as much memory, or why nothing could be measured."""
    with tempfile.TemporaryDirectory() as scratch:
        vectors, asked, places = (
            Path(scratch) / f"{name}.npy" for name in ("vectors", "asked", "places")
        )
        np.save(vectors, data.pages)
        np.save(asked, data.asked)
        # Its own GB are 2^30 bytes; bytes leave no doubt.
        most, free = f"{round(1e9 * memory_gb)}B", f"{psutil.virtual_memory().available}B"
        files = [str(file) for file in (vectors, asked, places)]
        try:
            python = str(autofaiss_python(folder))
            shown = run_quietly(
                [python, "-c", AUTOFAISS, *files, most, free, str(faiss.omp_get_max_threads())]
            )
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or error.stdout).strip().splitlines() or [str(error)]
            return f"autofaiss could not be measured: {reason[-1]}"
        found: dict[str, Any] = json.loads(shown.splitlines()[-1])
        recall = data.recall(np.load(places))
    return (
        f"autofaiss in {memory_gb:.3f} GB: {found['name']}, recall@10 {recall:.4f}, "
        f"{BATCH / found['batch_s']:,.0f} queries/s, {exact_s / found['batch_s']:.1f}x exact, "
        f"built in {found['build_s']:.1f} s"
    )


def missed_bars(found: Sequence[Measured], rows: int, kinds: Sequence[str]) -> list[str]:
    """The bars that are missed, of the types that were asked for at the most rows."""
    told = [
        f"{one.kind} at {one.rows:,}: the wrapper adds {share:.1%} to a batch of a {what}"
        for one in found
        for what, share in (("base", one.base_overhead), ("delta", one.delta_overhead))
        if share > MOST_OVERHEAD
    ]
    gains = [
        one.gain
        for one in found
        if one.kind != "flat" and one.rows == rows and one.recall >= TARGET
    ]
    if list(kinds) != ["flat"] and max(gains, default=0.0) < LEAST_GAIN:
        told.append(
            f"at {rows:,} and recall@10 of {TARGET} the best index answers {max(gains, default=0.0):.1f} times as many "
            f"queries as exact search; {LEAST_GAIN} are expected"
        )
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument(
        "--types", nargs="+", choices=list(EFFORTS), help="at every size; else as told above"
    )
    parser.add_argument(
        "--autofaiss", type=Path, help="folder of an environment that has autofaiss, or may get it"
    )
    args = parser.parse_args()
    found: list[Measured] = []
    missed: list[str] = []
    print(
        f"{os.cpu_count()} cores, FAISS with {faiss.omp_get_max_threads()} threads, batches of {BATCH}\n{HEADER}"
    )
    for rows in sorted(args.rows):
        data = draw_data(rows, args.dim)
        plain = build("flat", data.pages)
        exact_s, own_s = exact_times(plain, data.asked[:BATCH])
        gain = f"{own_s / exact_s:.1f} times as fast as by its own bound for matrix products"
        print(f"{rows:>10,} exact search of plain FAISS {BATCH / exact_s:>19,.0f}  {gain}")
        del plain
        kinds = args.types or list(EFFORTS if rows <= SLOW_ROWS else FAST)
        for kind in kinds:
            gc.collect()
            try:
                found.append(measure(data, kind, exact_s))
                print(found[-1], flush=True)
            except ValueError as error:
                print(f"{rows:>10,} {kind}: {error}", flush=True)
            except RuntimeError as error:
                missed.append(f"{kind} at {rows:,}: {error}")
    same = [
        one.plain_gb for one in found if one.kind == "ivf-flat" and one.rows == rows <= PLAIN_ROWS
    ]
    if args.autofaiss and same:
        print(beside_autofaiss(args.autofaiss, data, same[0], exact_s))
    print(f"peak memory {1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB")
    missed += missed_bars(found, rows, kinds)
    print("\n".join(missed) or "no bar is missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
