"""The summary that every job prints at its end."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """What a job did: its notes, a line each, and then one summary line.

    Attributes:
        stage: name of the job.
        where: path or URI of the result.
        done: rows that were processed.
        skipped: rows that were done before.
        failed: error type -> rows that failed with it.
        unprocessed: rows that are still pending, although the job tried.
        seconds: duration of the work.
        first_seconds: until the first rows were committed.
        arrivals: seconds from the start of the tasks, and rows, of each batch that Ray returned;
            not of rows that are tried again.
        totals: quantity -> amount, for throughput; {"GB": 2.5} prints "... GB/s".
        notes: further lines for the user.
        refused: why the job did not do its work; empty if it did.
        unit: name of the rows, in the plural.
        figures: what the job used, JSON-like: `pool` (see `PoolStats.figures`) and `cluster` (see
            `ClusterUse.figures`), where there was one.
    """

    stage: str
    where: str
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unprocessed: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: str = ""
    unit: str = "rows"
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def processed(self) -> int:
        """Rows that were processed, with success or without."""
        return self.done + self.failed.total()

    @property
    def succeeded(self) -> bool:
        """Whether the job may exit with status 0.

        Failed rows do not fail a job, unless every row failed.
        """
        only_failures = bool(self.failed) and not self.done + self.skipped
        return not self.unprocessed and not self.refused and not only_failures

    def add(self, quantity: str, amount: float | None) -> None:
        """Add to a quantity whose throughput is reported; None counts as zero."""
        self.totals[quantity] = self.totals.get(quantity, 0.0) + (amount or 0.0)

    def __str__(self) -> str:
        parts = [f"{self.stage}: {self.done} {self.unit} done{self._rate()}"]
        if self.skipped:
            parts[0] += f", {self.skipped} were done before"
        if self.failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
            parts.append(
                f"{self.failed.total()} failed ({reasons}; see `ampere status --failures`)"
            )
        if self.unprocessed:
            parts.append(
                f"{self.unprocessed} {self.unit} were not processed and remain pending; rerun the "
                "stage"
            )
        if self.refused:
            parts.append(self.refused)
        return "\n".join([*self.notes, f"{'; '.join(parts)}. Result: {self.where}"])

    def _rate(self) -> str:
        if not (self.done and self.seconds):
            return ""
        rates = [f"{self.done / self.seconds:.1f} {self.unit}/s"]
        rates += [f"{total / self.seconds:.3g} {name}/s" for name, total in self.totals.items()]
        if self.first_seconds >= 1:
            rates.append(f"the first after {self.first_seconds:.0f} s")
        return f" in {self.seconds:.1f} s ({', '.join(rates)})"
