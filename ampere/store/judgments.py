"""The judgments table: what people said about search results."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from ampere.records import JUDGMENTS
from ampere.retrieval.judged import Judgment, QueryKey, Rival, StoredJudgment
from ampere.store.table import Table
from ampere.store.workspace import Workspace

MERGE_AT = 64  # files: each judgment is a commit of its own, and many small files are slow to read


def append_judgments(workspace: Workspace, judgments: Sequence[Judgment]) -> list[str]:
    """Store judgments in one commit; returns their ids once they are durable.

    Blocks while another process writes the table.
    """
    now = datetime.now(UTC)
    rows = [_row(uuid.uuid4().hex, now, judgment) for judgment in judgments]
    table = workspace.table(JUDGMENTS)
    with workspace.lock(JUDGMENTS.name, wait=True):
        table.append(rows)
        if _files(table) >= MERGE_AT:
            table.compact()
    return [row["judgment_id"] for row in rows]


def delete_judgment(workspace: Workspace, judgment_id: str) -> bool:
    """Take a judgment back; returns whether there was one. An earlier one may count again.

    Blocks while another process writes the table.
    """
    table = workspace.table(JUDGMENTS)
    is_it = pc.field("judgment_id") == judgment_id
    with workspace.lock(JUDGMENTS.name, wait=True):
        if not table.count(is_it):
            return False
        table.delete(is_it)
    return True


def read_judgments(workspace: Workspace, limit: int | None = None) -> list[StoredJudgment]:
    """Stored judgments, the newest first.

    Args:
        workspace: with the table, which need not exist.
        limit: most judgments to return; None: all.
    """
    rows = workspace.table(JUDGMENTS).read()
    order = [("judged_at", "descending"), ("judgment_id", "ascending")]
    newest = rows.sort_by(order).slice(0, limit)
    return [_judgment(row) for row in newest.to_pylist()]


def judgment_json(judgment: StoredJudgment) -> dict[str, Any]:
    """A judgment as JSON-like values, as the endpoint takes and gives them."""
    return asdict(judgment) | {"judged_at": judgment.judged_at.isoformat()}


def _row(judgment_id: str, judged_at: datetime, judgment: Judgment) -> dict[str, Any]:
    row = {
        name: getattr(judgment, name) for name in ("sample_id", "model", "mode", "rank", "grade")
    }
    row |= {f"query_{name}": value for name, value in asdict(judgment.query).items()}
    if judgment.rival is not None:
        row |= {f"rival_{name}": value for name, value in asdict(judgment.rival).items()}
    return row | {"judgment_id": judgment_id, "judged_at": judged_at}


def _judgment(row: dict[str, Any]) -> StoredJudgment:
    groups: dict[str, dict[str, Any]] = {"query": {}, "rival": {}, "": {}}
    for column, value in row.items():
        group, _, name = column.partition("_")
        if group in ("query", "rival"):
            groups[group][name] = value
        else:
            groups[""][column] = value
    rival = groups["rival"]
    return StoredJudgment(
        query=QueryKey(**groups["query"]),
        rival=Rival(**rival) if rival["model"] is not None else None,
        **groups[""],
    )


def _files(table: Table) -> int:
    dataset = table.dataset()
    return 0 if dataset is None else len(dataset.get_fragments())
