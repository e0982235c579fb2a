"""Which rows of a stage are done, failed, stale or pending. The output table is the checkpoint: nothing else is kept.

A stage wants, for every sample it takes, a row with a certain fingerprint: a name of the inputs and settings that the
row is made from. A row with that fingerprint is done; one with another is stale and due again, as is a missing one.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import FAILURES
from ampere.store.table import Table
from ampere.store.workspace import Workspace


def fingerprint(*parts: Any) -> str:
    """A short name of some JSON-like values: equal values, equal name."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Plan:
    """The rows a stage wants, with what became of them so far.

    Attributes:
        wanted: sample_id, fingerprint, and the stage's own input columns.
        made: string [N], the fingerprint of each wanted row's row in the output, or null.
        done, failed, stale: bool [N], one entry per wanted row; what is none of them is pending.
        orphans: string [M], ids of rows in the output that are wanted no more, such as the embedding of a sample whose
            new picture could not be decoded.
    """

    wanted: pa.Table
    made: pa.ChunkedArray
    done: pa.Array
    failed: pa.Array
    stale: pa.Array
    orphans: pa.ChunkedArray

    def due(self, *, retry_failed: bool) -> pa.Table:
        """The rows to work on now: neither done nor, unless `retry_failed`, failed before on the same inputs."""
        skip = self.done if retry_failed else pc.or_(self.done, self.failed)
        return self.wanted.filter(pc.invert(skip))

    def present(self) -> set[str]:
        """Ids of the wanted rows that have a row in the output, whatever it was made from, and are not done."""
        return set(
            self.wanted["sample_id"]
            .filter(pc.and_not(pc.is_valid(self.made), self.done))
            .to_pylist()
        )

    def counts(self) -> dict[str, int]:
        """Rows by state; a row that is stale is also due, but not counted as pending."""
        done, failed, stale = (
            pc.sum(mask).as_py() or 0 for mask in (self.done, self.failed, self.stale)
        )
        return {
            "done": done,
            "pending": self.wanted.num_rows - done - failed - stale,
            "failed": failed,
            "stale": stale,
        }


def make_plan(
    workspace: Workspace, stage: str, output: Table, wanted: pa.Table, where: str | None = None
) -> Plan:
    """Compare what a stage wants with its output table and with the ledger of failures.

    Args:
        workspace: the workspace of `output`.
        stage: name of the stage in the ledger.
        output: the stage's table.
        wanted: sample_id, fingerprint, and any further columns.
        where: which rows of `output` are this stage's, such as "method = 'llm'"; None: all.
    """
    rows = output.read(["sample_id", "fingerprint"], where)
    made = _fingerprints_of(wanted, rows)
    failures = workspace.table(FAILURES).read(["sample_id", "fingerprint"], f"stage = '{stage}'")
    done = pc.fill_null(pc.equal(made, wanted["fingerprint"]), False)
    failed_before = pc.fill_null(
        pc.equal(_fingerprints_of(wanted, failures), wanted["fingerprint"]), False
    )
    failed = pc.and_not(failed_before, done)
    stale = pc.and_not(pc.is_valid(made), pc.or_(done, failed))
    known = pc.is_in(rows["sample_id"], value_set=wanted["sample_id"].combine_chunks())
    return Plan(
        wanted, made, done, failed, stale, orphans=rows["sample_id"].filter(pc.invert(known))
    )


def _fingerprints_of(wanted: pa.Table, rows: pa.Table) -> pa.ChunkedArray:
    """For each wanted sample the fingerprint it has in `rows`, or null."""
    index = pc.index_in(wanted["sample_id"], value_set=rows["sample_id"].combine_chunks())
    return rows["fingerprint"].take(index)
