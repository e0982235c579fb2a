"""Commits of result rows: results to the output table, errors to the failures table."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import Stage
from ampere.store.failures import clear_failures, record_failures
from ampere.store.samples import still_there
from ampere.store.table import IDS_PER_CONDITION, Table
from ampere.store.workspace import Workspace

COMMITS_PER_COMPACTION = 256


class Committer:
    """Commits batches of result rows; each id is in one of the two tables only.

    Args:
        workspace: where the tables are.
        stage: whose rows they are.
        report: counts the rows.
        present: ids that have an output row already, which is replaced.
    """

    def __init__(
        self, workspace: Workspace, stage: Stage, report: Report, present: set[str]
    ) -> None:
        self.workspace = workspace
        self.stage = stage
        self.report = report
        self.present = present
        self.commits = 0
        self.dropped = 0  # rows whose samples were deleted since the job began

    def commit(self, batch: pa.Table) -> None:
        """Commit the result rows of samples that still exist, and count them in the report.

        A row leaves one table before it enters the other: if the process is killed in between, the
        row is in neither, and is pending again.
        """
        stage, output = self.stage, self.workspace.table(self.stage.output)
        with self.workspace.commit_lock(output.spec.name):
            exists = still_there(self.workspace, batch["sample_id"])
            self.dropped += batch.num_rows - (pc.sum(exists).as_py() or 0)
            self._write(batch.filter(exists), stage, output)
        self.commits += 1
        if self.commits % COMMITS_PER_COMPACTION == 0:
            output.compact()

    def _write(self, batch: pa.Table, stage: Stage, output: Table) -> None:
        is_error = pc.is_valid(batch["error_type"])
        results, errors = batch.filter(pc.invert(is_error)), batch.filter(is_error)
        if results.num_rows:
            ids = results["sample_id"].to_pylist()
            clear_failures(self.workspace, stage.name, ids)
            if self.present.isdisjoint(ids):
                output.append(results)
            else:
                output.upsert(results)
        if errors.num_rows:
            if replaced := sorted(self.present.intersection(errors["sample_id"].to_pylist())):
                remove_rows(output, replaced, stage.owned_rows())
            record_failures(self.workspace, stage.name, errors)
        self.report.done += results.num_rows
        self.report.failed.update(errors["error_type"].to_pylist())


def remove_rows(output: Table, ids: Sequence[str], where: pc.Expression | None) -> None:
    """Delete the rows of some samples.

    Args:
        output: the table.
        ids: sample ids.
        where: condition that the rows must meet as well; None: no condition.
    """
    for start in range(0, len(ids), IDS_PER_CONDITION):
        condition = pc.field("sample_id").isin(ids[start : start + IDS_PER_CONDITION])
        output.delete(condition if where is None else condition & where)
