"""What every job says at its end."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """What a job did. Printed as its notes, a line each, and then the summary line that every job ends with."""

    stage: str
    where: str
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: str = ""
    unit: str = "rows"

    def __str__(self) -> str:
        rate = ""
        if self.done and self.seconds:
            first = (
                f", the first after {self.first_seconds:.0f} s" if self.first_seconds >= 1 else ""
            )
            read = "".join(
                f", {total / self.seconds:.3g} {name}/s" for name, total in self.totals.items()
            )
            rate = f" in {self.seconds:.1f} s ({self.done / self.seconds:.1f} {self.unit}/s{read}{first})"
        parts = [
            f"{self.stage}: {self.done} {self.unit} done{rate}"
            + f", {self.skipped} were done before" * bool(self.skipped)
        ]
        if self.failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
            parts.append(
                f"{self.failed.total()} failed ({reasons}; see `ampere status --failures`)"
            )
        if self.unanswered:
            parts.append(
                f"{self.unanswered} gave no answer and are still pending; run the stage again"
            )
        if self.refused:
            parts.append(self.refused)
        return "\n".join([*self.notes, f"{'; '.join(parts)}. Result: {self.where}"])

    @property
    def succeeded(self) -> bool:
        """Failed rows are in the ledger and do not fail a job, unless nothing but failures came out."""
        return (
            not self.unanswered
            and not self.refused
            and (self.done + self.skipped > 0 or not self.failed)
        )
