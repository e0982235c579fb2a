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


def delete_orphans(workspace: Workspace, table: Table, where: pc.Expression | None = None) -> None:
    """Delete the rows of samples that do not exist.

    The ids of the table are read before the samples: a live change writes its sample first.

    Args:
        workspace: of the table.
        table: made from samples.
        where: condition on the rows that may be deleted; None: all.
    """
    ids = table.read(["sample_id"], where)["sample_id"].unique()
    orphans = pc.filter(ids, pc.invert(_exist(workspace, ids)))
    for start in range(0, len(orphans), IDS_PER_CONDITION):
        part = orphans[start : start + IDS_PER_CONDITION]
        with workspace.commit_lock(table.spec.name):
            part = pc.filter(part, pc.invert(_exist(workspace, part)))  # some may have come again
            condition = pc.field("sample_id").isin(part)
            table.delete(condition if where is None else condition & where)


def _exist(workspace: Workspace, ids: pa.Array) -> pa.Array:
    """Which samples exist, bool [N]."""
    where = pc.field("sample_id").isin(ids) if len(ids) <= IDS_PER_CONDITION else None
    known = workspace.table(SAMPLES).read(["sample_id"], where)["sample_id"].combine_chunks()
    return pc.is_in(ids, value_set=known)
