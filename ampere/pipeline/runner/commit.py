"""Commits of result rows: results to the output table, errors to the failures table."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ampere.pipeline.runner.fragments import FRAGMENT, ids_by_fragment, in_tasks
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import Stage
from ampere.store.failures import clear_failures, record_failures
from ampere.store.samples import still_there
from ampere.store.table import IDS_PER_CONDITION, Table
from ampere.store.workspace import Workspace

FILES_PER_MERGE = 1024  # this many files add 10 ms to each commit


class Committer:
    """Commits batches of result rows; each id is in one of the two tables only, and once.

    Args:
        workspace: where the tables are.
        stage: whose rows they are.
        report: counts the rows.
        present: ids that have an output row already, which is replaced, with its fingerprint.
        newest_fragment: of the output table, before `present` was read. Rows in later fragments
            are those of this job, or of another process that wrote meanwhile.

    Attributes:
        committed: ids of this job's rows, with a result or an error.
        dropped: number of rows whose samples were deleted since the job began.
    """

    def __init__(
        self,
        workspace: Workspace,
        stage: Stage,
        report: Report,
        present: dict[str, str],
        newest_fragment: int,
    ) -> None:
        self.workspace = workspace
        self.stage = stage
        self.report = report
        self.present = present
        self.committed: set[str] = set()
        self._of_others: set[str] = set()
        self._rewritten: set[str] = set()  # of `present`: by a merge of files, or another process
        self._newest_fragment = newest_fragment
        self._files = 0
        self.dropped = 0

    def commit(self, batch: pa.Table) -> None:
        """Commit the result rows of samples that still exist, and count them in the report.

        A row leaves one table before it enters the other: if the process is killed in between, the
        row is in neither, and is pending again. Rows that are committed already are left out: Ray
        may run a task twice, and another process may have written the same sample.
        """
        output = self.workspace.table(self.stage.output)
        with self.workspace.commit_lock(output.spec.name):
            batch = self._without_doubles(batch, output)
            exists = still_there(self.workspace, batch["sample_id"])
            self.dropped += batch.num_rows - (pc.sum(exists).as_py() or 0)
            self._write(batch.filter(exists), output)
        if self._files >= FILES_PER_MERGE:
            self._files = 0
            output.merge_files(in_tasks())

    def _write(self, batch: pa.Table, output: Table) -> None:
        is_error = pc.is_valid(batch["error_type"])
        results, errors = batch.filter(pc.invert(is_error)), batch.filter(is_error)
        if results.num_rows:
            clear_failures(self.workspace, self.stage.name, results["sample_id"].to_pylist())
            self._insert(results, output)
        if errors.num_rows:
            self._remove_present(errors, output)
            record_failures(self.workspace, self.stage.name, errors)
        self.report.done += results.num_rows
        self.report.failed.update(errors["error_type"].to_pylist())

    def _without_doubles(self, batch: pa.Table, output: Table) -> pa.Table:
        """Leave out rows that this job has committed, or another process since the plan."""
        added, self._newest_fragment = output.ids_after(
            self._newest_fragment, self.stage.owned_rows()
        )
        self._of_others |= added - self.present.keys() - self.committed
        self._rewritten |= added & self.present.keys()
        self._of_others |= self._replaced(batch["sample_id"].to_pylist(), output)
        is_new = []
        for sample_id in batch["sample_id"].to_pylist():
            if sample_id in self.committed:
                is_new.append(False)
                continue
            self.committed.add(sample_id)
            is_new.append(sample_id not in self._of_others)
            self.report.done += sample_id in self._of_others
        return batch if all(is_new) else batch.filter(pa.array(is_new))

    def _replaced(self, ids: Sequence[str], output: Table) -> set[str]:
        """Those of some ids whose present row another process has replaced since the plan.

        A merge of files, too, moves rows to a new fragment. They keep their fingerprint.
        """
        if not (rewritten := sorted(self._rewritten.intersection(ids) - self.committed)):
            return set()
        replaced = set()
        for start in range(0, len(rewritten), IDS_PER_CONDITION):
            where = pc.field("sample_id").isin(rewritten[start : start + IDS_PER_CONDITION])
            if (owned := self.stage.owned_rows()) is not None:
                where &= owned
            for row in output.read(["sample_id", "fingerprint"], where).to_pylist():
                if row["fingerprint"] != self.present.get(row["sample_id"]):
                    replaced.add(row["sample_id"])
        return replaced

    def _insert(self, results: pa.Table, output: Table) -> None:
        if FRAGMENT in results.column_names:
            self._remove_present(results, output)
            # A fragment with some rows that are committed already is written again without them.
            fragments = [
                output.fragment_of(ids, fragment)
                for fragment, ids in ids_by_fragment(results).items()
            ]
            output.append_fragments(fragments, self._newest_fragment)
            self._files += len(fragments)
            return
        if self.present.keys().isdisjoint(results["sample_id"].to_pylist()):
            output.append(results)
        else:
            output.upsert(results)
        self._files += 1

    def _remove_present(self, rows: pa.Table, output: Table) -> None:
        if replaced := self.present.keys() & set(rows["sample_id"].to_pylist()):
            remove_rows(output, sorted(replaced), self.stage.owned_rows())
            for sample_id in replaced:
                del self.present[sample_id]


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
