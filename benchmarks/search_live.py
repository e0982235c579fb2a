"""Changes and queries at once, for `benchmarks/search.py`: when is a change found?"""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from search_data import FILTERS, SearchData
from search_tables import BenchmarkTable, vector_column

from ampere.records import Domain
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.searcher import Searcher
from ampere.retrieval.writer import TableWriter
from ampere.store.embeddings import maintain_live

CHANGES_PER_S, QUERIES_PER_S = 100, 50
PROBES_PER_S = 20  # further searches by vector that look for the newest changes
PROBED = 500  # hits of such a search: the upserts of six seconds
DELETED_AFTER = 251  # changes; each fifth change deletes an earlier one
LEAST, STEP = 0.5, 4e-5  # similarity to the probe of the first change, and what each adds


@dataclass
class Live:
    """Seconds that changes and queries took.

    Attributes:
        acknowledged: from the call of each change to its return.
        visible: to the first search that finds it, or no longer finds a deleted row.
        queries: of each query.
        late: seconds that queries began later than planned.
        lost: changes that no search found.
    """

    acknowledged: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    queries: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    lost: int = 0


@dataclass
class Changed:
    """A change: the row it upserts or deletes, when it was asked for and when it was seen."""

    sample_id: str
    similarity: float
    called: float
    is_deletion: bool
    seen: float | None = None


class LiveRun:
    """Changes a table at a fixed rate while a searcher answers queries at another.

    Args:
        table: with a published base.
        data: of the table.
    """

    def __init__(self, table: BenchmarkTable, data: SearchData) -> None:
        self.table, self.data, self.live = table, data, Live()
        self.schema = table.dataset.schema
        rng = np.random.default_rng(3)
        probe = rng.standard_normal(table.dim).astype(np.float32)
        self.probe = probe / np.linalg.norm(probe)
        self.changed: dict[int, Changed] = {}
        self.lock = threading.Lock()
        self.calls: list[Future[None]] = []

    def run(self, seconds: float) -> Live:
        """Change and search for some seconds, then until all changes were found, or 10 more."""
        commits = threading.Lock()  # the only process that writes
        with (
            TableWriter(
                self.table.table.uri,
                maintain=lambda: maintain_live(self.table.table, lambda: commits),
                lock=lambda: commits,
            ) as writer,
            self.table.searcher() as searcher,
            ThreadPoolExecutor(128) as changing,
            ThreadPoolExecutor(4) as searching,
        ):
            start = time.monotonic() + 0.5
            stop = start + seconds

            def change(number: int, planned: float) -> None:
                self.calls.append(changing.submit(self.change, number, planned, writer))

            def query(number: int, planned: float) -> None:
                self.calls.append(searching.submit(self.query, number, planned, searcher))

            def probe(number: int, planned: float) -> None:
                self.calls.append(searching.submit(self.look, searcher))

            clocks = [
                threading.Thread(target=at_rate, args=(rate, start, stop, call))
                for rate, call in (
                    (CHANGES_PER_S, change),
                    (QUERIES_PER_S, query),
                    (PROBES_PER_S, probe),
                )
            ]
            for clock in clocks:
                clock.start()
            for clock in clocks:
                clock.join()
            changing.shutdown()
            searching.shutdown()
            for call in self.calls:
                call.result()  # raises what the call raised
            while self.pending() and time.monotonic() < stop + 10:
                self.look(searcher)
                time.sleep(0.05)
        self.live.visible = [
            change.seen - change.called for change in self.changed.values() if change.seen
        ]
        self.live.lost = len(self.pending())
        return self.live

    def change(self, number: int, planned: float, writer: TableWriter) -> None:
        """Upsert a new row or an old one, or delete a row that was upserted before."""
        earlier = self.changed.get(number - DELETED_AFTER)
        if number % 5 == 4:
            if earlier is None or earlier.seen is None:
                return
            change = Changed(earlier.sample_id, earlier.similarity, planned, is_deletion=True)
            self._note(number, change)
            writer.delete([earlier.sample_id])
        else:
            name = f"live{number:08}" if number % 2 else f"page{number * 7:08}"
            change = Changed(name, LEAST + number * STEP, planned, is_deletion=False)
            row = self._row(name, change.similarity, number)
            self._note(number, change)
            writer.upsert(row)
        self.live.acknowledged.append(time.monotonic() - planned)

    def _note(self, number: int, change: Changed) -> None:
        with self.lock:
            self.changed[number] = change

    def _row(self, name: str, similarity: float, number: int) -> pa.Table:
        """A row whose vector has the similarity to the probe."""
        rng = np.random.default_rng([4, number])
        other = rng.standard_normal(self.table.dim).astype(np.float32)
        other -= (other @ self.probe) * self.probe
        other /= np.linalg.norm(other)
        vector = similarity * self.probe + np.sqrt(1 - similarity**2) * other
        return pa.table(
            {
                "sample_id": [name],
                "domain": [str(Domain.PAGE)],
                "product_id": [f"live{number}"],
                "split": ["test"],
                "origin": ["live"],
                "vector": vector_column(vector[None].astype(np.float32)),
                "fingerprint": [f"{(7 << 60) + number:016x}"],
                "text": [self.data.words[number % len(self.data.words)]],
                "price": [float(number % 1000)],
            }
        )

    def query(self, number: int, planned: float, searcher: Searcher) -> None:
        """Half of the queries are by vector alone, the others filtered or hybrid."""
        start = time.monotonic()
        vector = self.data.queries[number % len(self.data.queries)]
        kind = number % 4
        searcher.search(
            SearchRequest(
                vector=tuple(vector.tolist()),
                text=self.data.words[number % len(self.data.words)] if kind == 3 else None,
                mode="hybrid" if kind == 3 else "vector",
                filter=FILTERS["5 %"] if kind == 2 else "",
                domains=(Domain.PAGE,),
            ),
            QueryVectors(vector),
        )
        end = time.monotonic()
        self.live.queries.append(end - start)
        self.live.late.append(start - planned)

    def pending(self) -> list[Changed]:
        """Changes that no search has shown yet."""
        with self.lock:
            return [change for change in self.changed.values() if change.seen is None]

    def look(self, searcher: Searcher) -> None:
        """Search for the newest changes, and note which are visible.

        The columns of the hits are not read: hundreds at a time would be a load of their own.
        """
        pending = self.pending()
        index = searcher.snapshot.domains[Domain.PAGE]
        scores, places = index.nearest(self.probe[None], PROBED)
        here = places[0] >= 0
        names = index.sample_ids(places[0][here])
        now = time.monotonic()
        found = dict(zip(names, scores[0][here].tolist(), strict=True))
        worst = min(found.values(), default=1.0)
        for change in pending:
            there = abs(found.get(change.sample_id, -1.0) - change.similarity) < STEP / 4
            gone = change.similarity > worst + STEP and change.sample_id not in found
            if gone if change.is_deletion else there:
                change.seen = now


def at_rate(rate: int, start: float, stop: float, call: Callable[[int, float], object]) -> None:
    """Call at a fixed rate, with the number of the call and its planned time."""
    for number in itertools.count():
        planned = start + number / rate
        if planned >= stop:
            return
        if (wait := planned - time.monotonic()) > 0:
            time.sleep(wait)
        call(number, planned)


def slowest(values: list[float] | NDArray[np.float64]) -> float:
    """The 99th percentile of seconds."""
    return float(np.percentile(values, 99))
