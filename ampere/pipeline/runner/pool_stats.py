"""Utilization and cost of a pool of model actors.

Every actor adds columns to its result rows: its name, the time at which it was ready, the seconds
that its batch took, and whether the row was retried alone. `PoolStats` reads these columns and
removes them before the rows are committed.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

WORKER_COLUMNS = [
    pa.field("worker", pa.string()),
    pa.field("ready", pa.float64()),  # seconds since the epoch
    pa.field("seconds", pa.float64()),  # of its batch, an equal share for each row
    pa.field("retried", pa.bool_()),  # the row was processed alone, since its batch failed
]
HOUR_S = 3600.0


@dataclass
class PoolStats:
    """Sums over one run.

    Attributes:
        max_workers: the largest size of the pool.
        hourly_price: of a worker, in any currency; 0: not reported.
        started: seconds since the epoch, when the run began.
        first: seconds since the epoch, when the first results were there.
        ready: worker -> when it was ready; workers that returned results only.
        last: worker -> when its latest results were there; a pool removes workers as it shrinks.
        busy: seconds that workers spent on their batches.
        rows: that workers returned.
        retried: rows that were processed alone, since their batch failed.
    """

    max_workers: int
    hourly_price: float = 0.0
    started: float = 0.0
    first: float = 0.0
    ready: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    rows: int = 0
    retried: int = 0

    def start(self) -> None:
        """Note when the run began; later calls change nothing."""
        self.started = self.started or time.time()

    def collect(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The batches without the workers' columns, which are added to the sums."""
        for batch in batches:
            known = batch.filter(pc.is_valid(batch["worker"]))
            if known.num_rows:
                now = time.time()
                self.first = self.first or now
                workers = known["worker"].to_pylist()
                self.last |= dict.fromkeys(workers, now)
                self.ready |= dict(zip(workers, known["ready"].to_pylist(), strict=True))
                self.busy += pc.sum(known["seconds"]).as_py()
                self.retried += pc.sum(known["retried"]).as_py() or 0
                self.rows += known.num_rows
            yield batch.drop([column.name for column in WORKER_COLUMNS])

    @property
    def worker_hours(self) -> float:
        """Hours that workers were ready, until their latest results."""
        return sum(self.last[worker] - ready for worker, ready in self.ready.items()) / HOUR_S

    def figures(self) -> dict[str, Any]:
        """Seconds, workers, rates and cost; empty if no worker returned anything.

        A worker's time is that from being ready to its latest results, without its start.
        """
        if not self.rows:
            return {}
        hours = self.worker_hours
        return {
            "first_batch_s": self.first - self.started,
            "workers": len(self.ready),
            "last_worker_ready_s": max(self.ready.values()) - self.started,
            "busy_share": self.busy / (hours * HOUR_S),
            "rows_per_worker_hour": self.rows / hours,
            "worker_hours": hours,
        } | ({"cost": hours * self.hourly_price} if self.hourly_price else {})

    def __str__(self) -> str:
        figures = self.figures()
        if not figures:
            return ""
        hours = 1e6 / figures["rows_per_worker_hour"]
        price = ""
        if self.hourly_price:
            price = f", {hours * self.hourly_price:.2f} at {self.hourly_price:g} an hour"
        retried = ""
        if self.retried:
            retried = f"; {self.retried} samples were retried alone (see the worker logs)"
        return (
            # A pool that shrinks and grows again has had more workers than it ever had at once.
            f"actor pool: {figures['workers']} workers, at most {self.max_workers} at once, "
            f"ready in {figures['last_worker_ready_s']:.1f} s, "
            f"first batch at {figures['first_batch_s']:.1f} s, "
            f"{figures['busy_share']:.0%} busy; "
            f"{figures['rows_per_worker_hour']:,.0f} samples per worker-hour "
            f"({hours:.3g} worker-hours per million{price}){retried}"
        )
