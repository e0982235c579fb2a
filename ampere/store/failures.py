"""The ledger of failed rows: what failed in which stage, why, and how often."""

from datetime import UTC, datetime

import pyarrow as pa

from ampere.records import FAILURES
from ampere.store.table import IDS_AT_ONCE, sql_in
from ampere.store.workspace import Workspace


def record_failures(workspace: Workspace, stage: str, rows: pa.Table) -> None:
    """Add rows (sample_id, fingerprint, error_type, error_message) to the ledger; a repeated failure counts up."""
    ledger = workspace.table(FAILURES)
    ids = rows["sample_id"].to_pylist()
    before = ledger.read(
        ["sample_id", "attempts"], f"stage = '{stage}' AND {sql_in('sample_id', ids)}"
    )
    attempts = dict(
        zip(before["sample_id"].to_pylist(), before["attempts"].to_pylist(), strict=True)
    )
    now = datetime.now(UTC)
    columns = ["sample_id", "fingerprint", "error_type", "error_message"]
    with workspace.lock(FAILURES.name, wait=True):
        ledger.upsert(
            [
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
        )


def forget_failures(workspace: Workspace, stage: str, ids: list[str]) -> None:
    """Take rows that are done now out of the ledger."""
    ledger = workspace.table(FAILURES)
    if not ledger.count(f"stage = '{stage}'"):
        return
    for start in range(0, len(ids), IDS_AT_ONCE):
        condition = f"stage = '{stage}' AND {sql_in('sample_id', ids[start : start + IDS_AT_ONCE])}"
        if ledger.count(condition):
            with workspace.lock(FAILURES.name, wait=True):
                ledger.delete(condition)


def compact_ledger(workspace: Workspace) -> None:
    """Merge the files that many small commits leave."""
    with workspace.lock(FAILURES.name, wait=True):
        workspace.table(FAILURES).compact()
