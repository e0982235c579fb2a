"""Upserts and deletions of one search table, durable when they return.

Lance's primary key makes writers of several processes safe: none doubles or loses a row of another.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.retrieval.changes import GROUP_S, GroupCommitter

KEY = "sample_id"


class TableWriter:
    """Upserts and deletes rows of one search table.

    Args:
        uri: of the table.
        group_s: seconds that a commit waits for further changes.
        maintain: see `GroupCommitter`.
        lock: held around each commit by all processes that insert rows; None: there is none.
        is_strict: whether two processes never hold the lock at once, not even if one was paused;
            then keys are looked up by their index, which is faster.
    """

    def __init__(
        self,
        uri: str,
        group_s: float = GROUP_S,
        maintain: Callable[[], None] | None = None,
        lock: Callable[[], AbstractContextManager[object]] | None = None,
        *,
        is_strict: bool = True,
    ) -> None:
        self._uri, self._lock = uri, lock
        self._by_index = lock is not None and is_strict
        self._schema = lance.dataset(uri).schema
        self._committer = GroupCommitter(self.write, group_s, maintain)

    def upsert(self, rows: pa.Table) -> None:
        """Insert rows, replacing those with the same sample_id; return once they are durable.

        Args:
            rows: some or all columns of the table, with sample_id, domain, vector and fingerprint;
                columns that are missing become null.

        Raises:
            ValueError: a row has no sample_id, domain, vector or fingerprint, or a column has
                another type.
        """
        rows = checked(rows, self._schema)
        ids = rows[KEY].to_pylist()
        self._committer.submit({name: rows.slice(at, 1) for at, name in enumerate(ids)}).result()

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete rows; ids that there are not are ignored. Return once it is durable."""
        self._committer.submit(dict.fromkeys(sample_ids)).result()

    def close(self) -> None:
        """Commit what is waiting, and stop."""
        self._committer.close()

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, changes: dict[str, pa.Table | None]) -> None:
        """Write changes at once, in at most one upsert and one deletion.

        Args:
            changes: sample id -> its row, None: deleted.
        """
        upserted = [row for row in changes.values() if row is not None]
        deleted = [name for name, row in changes.items() if row is None]
        with self._lock() if self._lock else nullcontext():
            if upserted:
                # By an index, Lance does not record the keys that another process must see.
                merge = lance.dataset(self._uri).merge_insert(KEY)
                merge = merge.use_index(self._by_index)
                merge = merge.when_matched_update_all().when_not_matched_insert_all()
                merge.execute(pa.concat_tables(upserted).combine_chunks())
            if deleted:
                lance.dataset(self._uri).delete(pc.field(KEY).isin(deleted))


def checked(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with the columns and types of a search table; missing columns are null.

    Raises:
        ValueError: a needed value is null or missing, a column is not one of the table's, or has
            another type.
    """
    if unknown := [name for name in rows.column_names if name not in schema.names]:
        raise ValueError(
            f"unknown columns {', '.join(unknown)}; the search table has {', '.join(schema.names)}"
        )
    for name in (KEY, "domain", "vector", "fingerprint"):
        if name not in rows.column_names or rows[name].null_count:
            raise ValueError(f"a row has no {name}")
    columns = []
    for wanted in schema:
        if wanted.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, wanted.type))
            continue
        try:
            columns.append(rows[wanted.name].cast(wanted.type))
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"column {wanted.name} has type {rows[wanted.name].type}, which does not fit "
                f"{wanted.type}: {error}"
            ) from error
    return pa.table(columns, schema=schema)
