"""Which rows of a stage are done, failed, stale or pending.

The output table is the checkpoint. A stage wants a row with a certain fingerprint for each of its
samples: a hash of the inputs and settings that the row is made from. A row with that fingerprint
is done. A row with another one is stale, and a sample without a row is pending; both are processed.
"""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import FAILURES
from ampere.store.table import Table
from ampere.store.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The rows that a stage wants, and the state of each.

    Attributes:
        inputs: sample_id, fingerprint, and the stage's own input columns.
        output_fingerprints: string [N], the fingerprint of each row's output row, or null.
        done, failed, stale: bool [N], one entry per input row; a row that is none of them is
            pending.
        retryable: bool [N], the failed rows whose error may pass by itself.
        orphans: string [M], ids of output rows that are not wanted any more, such as the embedding
            of a sample whose new picture could not be decoded.
    """

    inputs: pa.Table
    output_fingerprints: pa.ChunkedArray
    done: pa.Array
    failed: pa.Array
    stale: pa.Array
    retryable: pa.Array
    orphans: pa.ChunkedArray

    def rows_to_process(self, *, retry_failed: bool, only_retryable: bool = False) -> pa.Table:
        """The pending and the stale rows, and failed ones.

        Args:
            retry_failed: add the failed rows.
            only_retryable: of these, only those whose error may pass by itself.
        """
        retried = self.retryable if only_retryable else self.failed
        skipped = pc.and_not(self.failed, retried) if retry_failed else self.failed
        return self.inputs.filter(pc.invert(pc.or_(self.done, skipped)))

    def present(self) -> dict[str, str]:
        """Rows that have an output row and are not done: id -> fingerprint of that row."""
        present = pc.and_not(pc.is_valid(self.output_fingerprints), self.done)
        ids = self.inputs["sample_id"].filter(present).to_pylist()
        return dict(zip(ids, self.output_fingerprints.filter(present).to_pylist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Rows by state: done, pending, failed, stale."""
        done, failed, stale = (
            pc.sum(mask).as_py() or 0 for mask in (self.done, self.failed, self.stale)
        )
        pending = self.inputs.num_rows - done - failed - stale
        return {"done": done, "pending": pending, "failed": failed, "stale": stale}


def make_plan(
    workspace: Workspace,
    stage: str,
    output: Table,
    inputs: pa.Table,
    where: pc.Expression | None = None,
    retryable: Collection[str] = (),
) -> Plan:
    """Compare what a stage wants with its output table and with the failures table.

    Args:
        workspace: the workspace of `output`.
        stage: name of the stage in the failures table.
        output: the stage's table.
        inputs: sample_id, fingerprint, and any further columns.
        where: condition on the rows of `output` that are this stage's, such as
            `pc.field("method") == "llm"`; None: all.
        retryable: error types that may pass by themselves.
    """
    rows = output.read(["sample_id", "fingerprint"], where)
    failures = workspace.table(FAILURES).read(
        ["sample_id", "fingerprint", "error_type"], pc.field("stage") == stage
    )
    wanted, made = inputs["fingerprint"], _values_of(inputs, rows)
    done = pc.fill_null(pc.equal(made, wanted), False)
    failed = pc.and_not(pc.fill_null(pc.equal(_values_of(inputs, failures), wanted), False), done)
    errors = _values_of(inputs, failures, "error_type")
    retryable_errors = pc.is_in(errors, value_set=pa.array(list(retryable), pa.string()))
    stale = pc.and_not(pc.is_valid(made), pc.or_(done, failed))
    known = pc.is_in(rows["sample_id"], value_set=inputs["sample_id"].combine_chunks())
    orphans = rows["sample_id"].filter(pc.invert(known))
    return Plan(inputs, made, done, failed, stale, pc.and_(failed, retryable_errors), orphans)


def _values_of(inputs: pa.Table, rows: pa.Table, column: str = "fingerprint") -> pa.ChunkedArray:
    """For each input row the value that its sample has in a column of `rows`, or null."""
    index = pc.index_in(inputs["sample_id"], value_set=rows["sample_id"].combine_chunks())
    return rows[column].take(index)
