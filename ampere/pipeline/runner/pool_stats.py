"""What came of a pool of model actors: how soon it was there, how busy it was, what its work costs.

Every actor writes its name, the time at which it was ready, and the seconds that its batch took beside its rows;
`PoolWatch` reads these columns on their way to the table and takes them out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = [
    pa.field("worker", pa.string()),
    pa.field("ready", pa.float64()),  # seconds since the epoch
    pa.field("seconds", pa.float64()),  # of its batch, an equal part for each row
]
HOUR = 3600.0


@dataclass
class PoolWatch:
    """The sums of one run.

    Attributes:
        most: workers that may come.
        hourly_price: of a worker, in any currency; 0: not told.
        began, first: seconds since the epoch: the start, the first results.
        ready: worker that gave results -> when it was ready.
        last: worker -> when its latest results came; a pool removes workers while others go on.
        busy: seconds that workers spent on their batches.
        rows: that workers gave back.
    """

    most: int
    hourly_price: float = 0.0
    began: float = 0.0
    first: float = 0.0
    ready: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    rows: int = 0

    def begin(self) -> None:
        self.began = self.began or time.time()

    def watched(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The batches as they come, without the actors' columns."""
        for batch in batches:
            known = batch.filter(pc.is_valid(batch["worker"]))
            if known.num_rows:
                now = time.time()
                self.first = self.first or now
                self.last |= dict.fromkeys(known["worker"].to_pylist(), now)
                self.ready |= dict(
                    zip(known["worker"].to_pylist(), known["ready"].to_pylist(), strict=True)
                )
                self.busy += pc.sum(known["seconds"]).as_py()
                self.rows += known.num_rows
            yield batch.drop([column.name for column in COLUMNS])

    def figures(self) -> dict[str, Any]:
        """What was measured, in seconds and workers; empty if no worker gave anything back.

        A worker's time is that from being ready to its latest results: what it took to start is told beside it.
        """
        if not self.rows:
            return {}
        hours = sum(self.last[worker] - ready for worker, ready in self.ready.items()) / HOUR
        return {
            "first_batch_s": self.first - self.began,
            "workers": len(self.ready),
            "last_worker_ready_s": max(self.ready.values()) - self.began,
            "busy_share": self.busy / (hours * HOUR),
            "rows_per_worker_hour": self.rows / hours,
        }

    def __str__(self) -> str:
        found = self.figures()
        if not found:
            return ""
        needed = 1e6 / found["rows_per_worker_hour"]
        price = (
            f", {needed * self.hourly_price:.2f} at {self.hourly_price:g} an hour"
            if self.hourly_price
            else ""
        )
        return (
            f"pool: first results after {found['first_batch_s']:.1f} s; {found['workers']} of at most {self.most} "
            f"workers gave results, the last ready after {found['last_worker_ready_s']:.1f} s; from then on busy "
            f"{found['busy_share']:.0%} of their time; {found['rows_per_worker_hour']:,.0f} samples per worker-hour "
            f"({needed:.3g} worker-hours for a million{price})"
        )
