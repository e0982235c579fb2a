"""The failures table: which rows failed in which stage, why, and how often."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import FAILURES
from ampere.store.table import IDS_PER_CONDITION
from ampere.store.workspace import Workspace


def record_failures(workspace: Workspace, stage: str, rows: pa.Table) -> None:
    """Add or update failed rows; the attempts of a row that failed before count up.

    Args:
        workspace: whose table it is.
        stage: name of the stage.
        rows: sample_id, fingerprint, error_type and error_message.
    """
    table = workspace.table(FAILURES)
    ids = rows["sample_id"].to_pylist()
    before = table.read(
        ["sample_id", "attempts"], (pc.field("stage") == stage) & pc.field("sample_id").isin(ids)
    )
    attempts = dict(
        zip(before["sample_id"].to_pylist(), before["attempts"].to_pylist(), strict=True)
    )
    now = datetime.now(UTC)
    columns = ["sample_id", "fingerprint", "error_type", "error_message"]
    failures = [
        {
            "stage": stage,
            "sample_id": row["sample_id"],
            "fingerprint": row["fingerprint"],
            "error_type": row["error_type"],
            "message": row["error_message"],
            "attempts": attempts.get(row["sample_id"], 0) + 1,
            "time": now,
        }
        for row in rows.select(columns).to_pylist()
    ]
    with workspace.lock(FAILURES.name, wait=True):
        table.upsert(failures)


def clear_failures(workspace: Workspace, stage: str, ids: list[str]) -> None:
    """Delete the failures of rows that are done now."""
    table = workspace.table(FAILURES)
    if not table.count(pc.field("stage") == stage):
        return
    for start in range(0, len(ids), IDS_PER_CONDITION):
        chunk = ids[start : start + IDS_PER_CONDITION]
        condition = (pc.field("stage") == stage) & pc.field("sample_id").isin(chunk)
        if table.count(condition):
            with workspace.lock(FAILURES.name, wait=True):
                table.delete(condition)


def compact_failures(workspace: Workspace) -> None:
    """Merge the small files that many commits leave."""
    with workspace.lock(FAILURES.name, wait=True):
        workspace.table(FAILURES).compact()
