"""Which rows failed for the first time in a run, which failed before, and which were repaired."""

from collections import defaultdict
from dataclasses import dataclass

from ampere.records import FAILURES
from ampere.store.workspace import Workspace

EXAMPLES = 3
SHOWN_MESSAGE = 300  # characters

Failed = dict[tuple[str, str], tuple[str, str]]
"""Stage and sample_id of a failed row -> its error type and message."""


@dataclass(frozen=True)
class Reason:
    """Rows of a stage that failed with one type of error.

    Attributes:
        examples: sample ids with their messages.
    """

    stage: str
    error_type: str
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FailureChanges:
    """The failures table after a run, against the one before.

    Attributes:
        new, repeated: reasons, the most frequent first.
        repaired: number of rows that are no longer among the failures.
    """

    new: tuple[Reason, ...]
    repeated: tuple[Reason, ...]
    repaired: int

    @property
    def new_count(self) -> int:
        """Number of rows that failed for the first time."""
        return sum(reason.count for reason in self.new)

    @property
    def repeated_count(self) -> int:
        """Number of rows that had failed before."""
        return sum(reason.count for reason in self.repeated)


def failed_rows(workspace: Workspace) -> Failed:
    """The failures table of now."""
    rows = workspace.table(FAILURES).read(["stage", "sample_id", "error_type", "message"])
    return {
        (row["stage"], row["sample_id"]): (row["error_type"], row["message"] or "")
        for row in rows.to_pylist()
    }


def failure_changes(before: Failed, now: Failed) -> FailureChanges:
    """Compare the failures before and after a run."""
    return FailureChanges(
        new=reasons({row: error for row, error in now.items() if row not in before}),
        repeated=reasons({row: error for row, error in now.items() if row in before}),
        repaired=len(before.keys() - now.keys()),
    )


def reasons(failed: Failed) -> tuple[Reason, ...]:
    """Failed rows by stage and type of error, the most frequent first, with examples."""
    groups: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for (stage, sample), (error_type, message) in sorted(failed.items()):
        groups[stage, error_type].append((sample, message[:SHOWN_MESSAGE]))
    found = [
        Reason(stage, error_type, len(rows), tuple(rows[:EXAMPLES]))
        for (stage, error_type), rows in groups.items()
    ]
    return tuple(sorted(found, key=lambda reason: -reason.count))
