"""What a row-by-row stage is, and the result rows it returns.

A stage subclasses `Stage` and implements two methods: `inputs` names the rows it wants, and
`transform` turns rows into result rows with Ray Data. `run_stage` in run.py runs it.

A result row has the columns of the output table and two more, `error_type` and `error_message`.
Where those are set, the row goes to the failures table instead of the output table. Tasks whose
rows are large write them themselves, and return what `write_fragment` in fragments.py does.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ampere.pipeline.runner.plan import Plan, make_plan
from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES, TableSpec
from ampere.store.table import Table
from ampere.store.texts import IS_LIVE
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

ERROR_COLUMNS = [pa.field("error_type", pa.string()), pa.field("error_message", pa.string())]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How rows that were lost with their worker are retried.

    Attributes:
        batch_sizes: one retry for each size, in isolated batches; rows that are lost in the last
            one are failed. Empty: lost rows stay pending.
        errors: error types whose rows are retried in the same way; the last attempt records them.
    """

    batch_sizes: tuple[int, ...] = ()
    errors: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Work:
    """The rows of one attempt.

    Attributes:
        rows: the rows, with the columns of `Stage.inputs`.
        blocks: the same rows as a Ray dataset.
        batch_size: rows per block. Isolated batches must be no larger, or Ray would join blocks.
        isolated: the rows were lost with their workers before. Give a worker one batch at a time,
            so that a row that kills it takes few other rows with it.
    """

    rows: pa.Table
    blocks: "ray.data.Dataset"
    batch_size: int
    isolated: bool


class Stage(ABC):
    """One row-by-row stage of the pipeline.

    Attributes:
        name: in the failures table, in reports and in messages.
        output: the table that it fills.
        batch_size: rows per block, and so per task and per commit.
        unit: name of a row in messages.
        gpus: GPUs that it cannot start without.
        startup: what the first rows wait for, for the progress bar.
        retry: what happens to rows that were lost with their worker.
        retryable: error types of failed rows that may pass by themselves in a later run.
        writes_fragments: its tasks end with `write_fragment`. No other stage compacts its table.
    """

    name: str
    output: TableSpec
    batch_size: int
    unit: str = "row"
    gpus: float = 0.0
    startup: str = "starting workers"
    retry: RetryPolicy = RetryPolicy()
    retryable: frozenset[str] = frozenset()
    writes_fragments: bool = False

    @abstractmethod
    def inputs(self) -> pa.Table:
        """One row per sample that should have an output row.

        Returns:
            `sample_id`, `fingerprint`, and whatever columns `transform` needs.
        """

    @abstractmethod
    def transform(self, work: Work) -> "ray.data.Dataset":
        """Rows to result rows, in any order; called only if a row needs work."""

    def owned_rows(self) -> pc.Expression | None:
        """Condition on the output rows that belong to this stage; None: all."""
        return None

    def without_work(self, rows: pa.Table) -> tuple[Iterator[pa.Table], pa.Table]:
        """Split rows into result rows that are known without `transform`, and rows that need it."""
        return iter(()), rows

    def rows_per_block(self, num_rows: int, cores: int) -> int:
        """Rows per block in the first attempt.

        Args:
            num_rows: rows to process.
            cores: CPU cores of the cluster.
        """
        return self.batch_size

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        """Result rows from the batches of `transform`, where the two differ; adds to the report."""
        return batches

    def expand(self, results: pa.Table) -> pa.Table:
        """Result rows of all rows that share the result of one; for stages that deduplicate."""
        return results

    def finish(self, output: Table, report: Report) -> None:  # noqa: B027  # optional
        """Clean up the output table and add notes to the report, after all commits."""

    def plan(self, workspace: Workspace) -> Plan:
        """Compare what the stage wants with its output and with the failures table."""
        output = workspace.table(self.output)
        retryable = self.retryable | self.retry.errors
        plan = make_plan(workspace, self.name, output, self.inputs(), self.owned_rows(), retryable)
        if not len(plan.orphans):
            return plan
        # Live samples brought their frames and vectors; they need no row of this stage's inputs.
        live = workspace.table(SAMPLES).read(["sample_id"], IS_LIVE)["sample_id"]
        kept = pc.is_in(plan.orphans, value_set=live.combine_chunks())
        return replace(plan, orphans=plan.orphans.filter(pc.invert(kept)))


def result_schema(spec: TableSpec) -> pa.Schema:
    """The columns of result rows: those of the table, and the two error columns; all nullable."""
    columns = [pa.field(column.name, column.type) for column in spec.schema]
    return pa.schema([*columns, *ERROR_COLUMNS])


def result_table(spec: TableSpec, rows: list[dict]) -> pa.Table:
    """Result rows as Arrow; a column that a row does not have is null."""
    return pa.Table.from_pylist(rows, schema=result_schema(spec))


def error_row(sample_id: str, fingerprint: str, error: BaseException) -> dict[str, str]:
    """The result row of a sample that failed with `error`."""
    return {"sample_id": sample_id, "fingerprint": fingerprint, **error_columns(error)}


def error_columns(error: BaseException) -> dict[str, str]:
    """The error columns of a result row."""
    return {"error_type": type(error).__name__, "error_message": str(error) or repr(error)}
