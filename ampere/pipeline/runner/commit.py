"""Commits of result rows: results to the output table, errors to the failures table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ampere.pipeline.runner.report import Report
from ampere.store.failures import forget_failures, record_failures
from ampere.store.table import IDS_AT_ONCE, Table, sql_in
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    pass
from ampere.pipeline.runner.stage import Stage

COMMITS_PER_COMPACTION = 256


class Committer:
    """Writes batches of result rows: results to the output table, errors to the ledger, each id in one place only.

    Args:
        present: ids that have a row in the output already. Others are appended, which costs the same however large
            the table is; a merge looks at every key.
    """

    def __init__(
        self, workspace: Workspace, stage: Stage, report: Report, present: set[str]
    ) -> None:
        self.workspace = workspace
        self.stage = stage
        self.report = report
        self.present = present
        self.commits = 0

    def commit(self, batch: pa.Table) -> None:
        stage, output = self.stage, self.workspace.table(self.stage.output)
        is_bad = pc.is_valid(batch["error_type"])
        good, bad = batch.filter(pc.invert(is_bad)), batch.filter(is_bad)
        # A row leaves one place before it comes to the other: killed in between, it is in none, and due again.
        if good.num_rows:
            ids = good["sample_id"].to_pylist()
            forget_failures(self.workspace, stage.name, ids)
            if self.present.isdisjoint(ids):
                output.append(good)
            else:
                output.upsert(good)
        if bad.num_rows:
            if there := sorted(self.present.intersection(bad["sample_id"].to_pylist())):
                remove_rows(output, there, stage.where)
            record_failures(self.workspace, stage.name, bad)
        self.report.done += good.num_rows
        self.report.failed.update(bad["error_type"].to_pylist())
        self.commits += 1
        if self.commits % COMMITS_PER_COMPACTION == 0:
            output.compact()


def remove_rows(output: Table, ids: Sequence[str], where: str | None) -> None:
    """Delete the rows of some samples, of those that `where` tells."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        condition = sql_in("sample_id", ids[start : start + IDS_AT_ONCE])
        output.delete(condition if where is None else f"{condition} AND {where}")
