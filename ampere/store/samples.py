"""Rows of samples that are gone, in the tables that are made from samples."""

import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import SAMPLES
from ampere.store.table import IDS_PER_CONDITION, Table
from ampere.store.workspace import Workspace


def still_there(workspace: Workspace, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which samples exist, bool [N]; all, if there is no table of samples."""
    table = workspace.table(SAMPLES)
    if table.dataset() is None:
        return pa.chunked_array([pa.array([True] * len(ids), pa.bool_())])
    known = table.read(["sample_id"], pc.field("sample_id").isin(ids.unique()))["sample_id"]
    return pc.is_in(ids, value_set=known.combine_chunks())


def delete_others(
    workspace: Workspace,
    table: Table,
    remaining: pa.Array,
    where: pc.Expression | None = None,
) -> int:
    """Delete the rows of samples that are not among those that remain; return their number.

    Args:
        workspace: of the table.
        table: made from samples.
        remaining: string [N], ids of all samples.
        where: condition on the rows that may be deleted; None: all.
    """
    ids = table.read(["sample_id"], where)["sample_id"]
    gone = ids.filter(pc.invert(pc.is_in(ids, value_set=remaining))).unique()
    for start in range(0, len(gone), IDS_PER_CONDITION):
        condition = pc.field("sample_id").isin(gone[start : start + IDS_PER_CONDITION])
        with workspace.commit_lock(table.spec.name):
            table.delete(condition if where is None else condition & where)
    return len(gone)
