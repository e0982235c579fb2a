"""Measure searches: by vector, words and both, with filters, and while the table changes.

    python benchmarks/search.py [--rows 100000 1000000] [--dim 128] [--types hnsw flat ivf-flat]
                                [--milvus PYTHON] [--seconds 60] [--no-switch]

All is measured in one run, since machines are noisy. Rows have vectors around overlapping centers
(as in `benchmarks/index.py`), titles of 8 Chinese and English words whose frequency follows Zipf's
law, and two numbers for filters: a price, which is random, and a likeness, which follows the
vectors, as a category does. One query at a time, k = 10. For each number of rows:

1. Vector search of each index type, without a filter and with filters that 50 %, 5 % and 0.1 % of
   the rows pass: recall@10 against exact search over the passing rows, p50 and p99. Beside it the
   same FAISS index with a post-filter: it fetches twice as many results as must be expected, and
   drops those that do not pass. `alike` are filters by likeness, whose rows lie together.
2. Words, and words with vectors, on the first type, as 7 and 8; half of the queries.
3. Lance's own IVF_FLAT index of a copy of the table with a prefilter and, with `--milvus`, HNSW of
   milvus-lite in another environment.
4. What the wrapper adds to a batch of 256 over plain FAISS.
5. The parts of one filtered search whose condition is new: ids of the rows, mask, FAISS, columns.
6. The switch of `ampere.retrieval.allowed`: milliseconds and recall of comparing each passing
   item, and of FAISS with a bitmap and a raised effort (x1, x2, ...), by the number of passing
   items. Not with `--no-switch`.
7. Resident memory of a searcher in a process of its own, opened and after 200 searches.
8. Changes: 100 a second (upserts of new and old rows, and deletions) beside 50 queries a second,
   for `--seconds`. From the call of a change to its acknowledgement, and to the first search that
   finds it.

After all measurements the exit status is 1 if a bar is missed: filtered recall@10 0.99 for the
filters by price with every type; wrapper at most 5 % of a batch; at 1 M rows, memory at most 1.4
times FAISS's files and those of the ids, and what the searches add at most Lance's caches; p99 of a
change's acknowledgement 0.5 s, and of a change to be found 2 s.
"""

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from bars import check_bars, check_limits
from numpy.typing import NDArray
from search_beside import (
    HEADER,
    Line,
    measure_lance,
    measure_milvus,
    measured,
    page_numbers,
    post_filter,
)
from search_data import BATCH, FILTERS, K, SearchData, draw_search_data
from search_live import LiveRun, slowest
from search_switch import measure_switch
from search_tables import BenchmarkTable, base_segment
from timing import best_times, median_ms, percentiles, timed

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval.allowed import search_allowed
from ampere.retrieval.index_types import SEARCH_EFFORTS, search, set_blas_threshold
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.searcher import INDEX_CACHE_BYTES, METADATA_CACHE_BYTES, Searcher
from ampere.retrieval.segments import EXTRA_CANDIDATES, PassingRows
from ampere.retrieval.snapshot import id_mask, rows_by_id

COUNTED_FILTERS = ("50 %", "5 %", "0.1 %")
QUERIES = 300
MEMORY_FROM = 1_000_000  # rows: below, the libraries weigh more than the vectors
MIN_RECALL, MAX_OVERHEAD, MAX_MEMORY, MAX_VISIBLE_S, MAX_ACK_S = 0.99, 0.05, 1.4, 2.0, 0.5
PART_REPEATS = 10
Bar = tuple[str, float, float]


class Measurement:
    """All measurements at one number of rows.

    Args:
        folder: for the table; new.
        data: rows and queries.
        args: of the command line.

    Attributes:
        bars, limits: as of `check_bars` and `check_limits`.
    """

    def __init__(self, folder: Path, data: SearchData, args: argparse.Namespace) -> None:
        self.data, self.args, self.rows = data, args, len(data.pages)
        start = time.perf_counter()
        self.table = BenchmarkTable.of(folder / "workspace", data.table)
        print(f"table with indexes written in {time.perf_counter() - start:.1f} s")
        self.queries: int = args.queries
        self.exact = {name: data.exact(name, self.queries) for name in FILTERS}
        self.bars: list[Bar] = []
        self.limits: list[Bar] = []

    def run(self) -> None:
        """Measure and print everything."""
        for number, kind in enumerate(self.args.types):
            build_s = timed(functools.partial(self.table.build, IndexSettings(type=kind)))
            searcher = self.table.searcher()
            index = base_segment(searcher)
            print(f"\n{kind} {index.search_effort}: built and published in {build_s:.1f} s")
            print(HEADER)
            self.vectors(kind, searcher)
            if number == 0:
                self.words(searcher)
            self.overhead(kind, searcher)
            self.parts(searcher)
            if self.args.switch:
                print("\nms and recall@10 by the number of passing items")
                for line in measure_switch(kind, index, self.data):
                    print(line, flush=True)
            if number == 0:
                self.memory(kind)
                self.live()
        print(f"\n{HEADER}")
        self.beside()
        self.milvus()

    def find(self, searcher: Searcher, number: int, **fields: Any) -> list[int]:
        """Page numbers of a query's hits."""
        vector = self.data.queries[number]
        request = SearchRequest(vector=tuple(vector.tolist()), domains=(Domain.PAGE,), **fields)
        hits = searcher.search(request, QueryVectors(vector)).hits[Domain.PAGE]
        return page_numbers([hit.sample_id for hit in hits])

    def vectors(self, kind: str, searcher: Searcher) -> None:
        """Vector search with each filter, and plain FAISS with a post-filter."""
        segment = base_segment(searcher)
        for name, condition in FILTERS.items():

            def ours(number: int, condition: str = condition) -> list[int]:
                return self.find(searcher, number, filter=condition)

            line = self._measured(f"ours {kind}", name, ours)
            if name in COUNTED_FILTERS:
                bar = f"recall@10 of {kind}, {name} of {self.rows:,} rows pass"
                self.bars.append((bar, line.recall, MIN_RECALL))
            plain = post_filter(segment.index, segment.search_effort, self.data, name)
            self._measured(f"FAISS {kind}, post-filter", name, plain)

    def words(self, searcher: Searcher) -> None:
        """Search by words, and by words and vectors."""
        for mode in ("lexical", "hybrid"):
            for name in ("none", *COUNTED_FILTERS):

                def find(number: int, mode: str = mode, name: str = name) -> list[int]:
                    text = self.data.words[number]
                    return self.find(searcher, number, text=text, mode=mode, filter=FILTERS[name])

                queries = max(1, self.queries // 2)
                line = measured(f"ours {mode}", self.data, name, None, find, queries)
                print(line, flush=True)

    def _measured(self, engine: str, name: str, find: Callable[[int], list[int]]) -> Line:
        line = measured(engine, self.data, name, self.exact[name], find, self.queries)
        print(line, flush=True)
        return line

    def overhead(self, kind: str, searcher: Searcher) -> None:
        """What the wrapper adds to a batch over plain FAISS of the same index."""
        batch, segment = self.data.queries[:BATCH], base_segment(searcher)
        index = searcher.snapshot.domains[Domain.PAGE]
        plain_s, ours_s = best_times(
            lambda: search(segment.index, batch, K, segment.search_effort),
            lambda: index.nearest(batch, K),
        )
        print(f"batch of {BATCH}: plain FAISS {1000 * plain_s:.1f} ms, ours {1000 * ours_s:.1f} ms")
        name = f"overhead of a batch, {kind}, {self.rows:,} rows"
        self.limits.append((name, ours_s / plain_s - 1, MAX_OVERHEAD))

    def parts(self, searcher: Searcher) -> None:
        """Milliseconds of the parts of one filtered search."""
        snapshot, segment = searcher.snapshot, base_segment(searcher)
        index, query = snapshot.domains[Domain.PAGE], self.data.queries[:1]
        columns = ["sample_id", "product_id", "domain", "text", "media_uri", "price"]
        for name in COUNTED_FILTERS:
            condition = FILTERS[name]
            passing = snapshot.passing_rows(condition)
            allowed = passing.of(segment)
            places = index.nearest(query, K, passing)[1][0]
            row_ids = index.row_ids(places[places >= 0])

            def ids(condition: str = condition) -> NDArray[np.uint64]:
                scanner = snapshot.dataset.scanner(columns=[], filter=condition, with_row_id=True)
                return scanner.to_table()["_rowid"].to_numpy()

            found = ids()
            times = {
                "ids from Lance": ids,
                "mask of ids": lambda found=found: id_mask(found),
                "mask of items": lambda passing=passing: PassingRows(passing.mask).of(segment),
                "FAISS, 10 hits": lambda allowed=allowed: search_allowed(
                    segment.index, query, K, segment.search_effort, allowed, EXTRA_CANDIDATES
                ),
                "FAISS, 128 hits": lambda allowed=allowed: search_allowed(
                    segment.index, query, 128, segment.search_effort, allowed, EXTRA_CANDIDATES
                ),
                "columns of 10 hits": lambda row_ids=row_ids: rows_by_id(
                    snapshot.dataset, row_ids, columns
                ),
            }
            shown = ", ".join(
                f"{part} {median_ms(call, PART_REPEATS):.2f}" for part, call in times.items()
            )
            print(f"parts in ms, {name}: {shown}", flush=True)

    def memory(self, kind: str) -> None:
        """Resident memory of a searcher in a process of its own."""
        requests: list[dict[str, object]] = [
            {"filter": FILTERS[name], "text": self.data.words[number], "mode": mode}
            for number, (name, mode) in enumerate(
                [("none", "vector"), ("5 %", "vector"), ("50 %", "hybrid"), ("none", "lexical")]
                * 50
            )
        ]
        opened, searched = self.table.loaded_bytes(requests)
        folder = self.table.newest_base()
        files = [*folder.glob("*.faiss"), *folder.glob("*.parquet")]
        files_bytes = sum(file.stat().st_size for file in files)
        print(
            f"memory of a searcher, {kind}: {opened / 1e9:.3f} GB opened, {searched / 1e9:.3f} GB "
            f"after {len(requests)} searches; files of FAISS and ids {files_bytes / 1e9:.3f} GB"
        )
        if self.rows >= MEMORY_FROM:
            name = f"memory of a searcher over its files, {self.rows:,} rows"
            self.limits.append((name, opened / files_bytes, MAX_MEMORY))
            cap = (INDEX_CACHE_BYTES + METADATA_CACHE_BYTES) / 1e9
            name = f"GB that {len(requests)} searches add, {self.rows:,} rows"
            self.limits.append((name, (searched - opened) / 1e9, cap))

    def beside(self) -> None:
        """Lance's own index of the same rows."""
        build_s, lines = measure_lance(self.table.table.uri, self.data, self.exact, self.queries)
        print(*lines, f"Lance's index built in {build_s:.1f} s", sep="\n", flush=True)

    def milvus(self) -> None:
        """milvus-lite on the same vectors, if its environment is given."""
        if self.args.milvus is None:
            return
        try:
            build_s, lines = measure_milvus(
                self.args.milvus,
                self.data,
                self.exact,
                self.queries,
                ef=64,
                seconds=self.args.seconds,
            )
        except RuntimeError as error:
            print(f"milvus-lite could not be measured: {error}")
        else:
            print(*lines, f"milvus-lite filled in {build_s:.1f} s", sep="\n", flush=True)

    def live(self) -> None:
        """Changes beside queries."""
        with tempfile.TemporaryDirectory() as folder:  # other measurements need the table unchanged
            table = self.table.copy(Path(folder) / "copy")
            live = LiveRun(table, self.data).run(self.args.seconds)
        count = len(live.acknowledged)
        print(f"\nlive, {count} changes and {len(live.queries)} queries, p50 and p99 in ms:")
        for name, values in (
            ("acknowledged", live.acknowledged),
            ("found", live.visible),
            ("a query", live.queries),
            ("begin of a query after its time", live.late),
        ):
            p50, p99 = percentiles(values)
            print(f"  {name}: {p50:.1f}, {p99:.1f}")
        self.limits += [
            (
                f"p99 seconds to acknowledge, {self.rows:,} rows",
                slowest(live.acknowledged),
                MAX_ACK_S,
            ),
            (f"p99 seconds until found, {self.rows:,} rows", slowest(live.visible), MAX_VISIBLE_S),
            (f"changes that were not found, {self.rows:,} rows", live.lost, 0),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=QUERIES, help="of each measurement")
    parser.add_argument(
        "--types", nargs="+", choices=list(SEARCH_EFFORTS), default=["hnsw", "flat", "ivf-flat"]
    )
    parser.add_argument("--milvus", type=Path, help="Python of an environment with milvus-lite")
    parser.add_argument("--seconds", type=float, default=60.0, help="of changes beside queries")
    parser.add_argument("--no-switch", dest="switch", action="store_false")
    args = parser.parse_args(arguments)
    set_blas_threshold()
    print(f"{os.cpu_count()} cores, FAISS with {faiss.omp_get_max_threads()} threads, k = {K}")
    bars: list[Bar] = []
    limits: list[Bar] = []
    for rows in args.rows:
        print(f"\n# {rows:,} rows", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            measurement = Measurement(Path(scratch), draw_search_data(rows, args.dim), args)
            measurement.run()
        bars += measurement.bars
        limits += measurement.limits
    return check_bars(*bars) | check_limits(*limits)


if __name__ == "__main__":
    raise SystemExit(main())
