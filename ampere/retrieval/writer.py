"""Live changes of a search table: upserts and deletions that are durable when they return.

Concurrent calls share commits, since a commit of many rows takes hardly longer than that of one.
Lance's primary key makes writers of several processes safe: none overwrites or doubles a row of
another without seeing it.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import lance
import pyarrow as pa
import pyarrow.compute as pc

KEY = "sample_id"
GROUP_S = 0.05  # a commit waits this long for further changes
MAX_GROUP = 1000  # changes of one commit
COMMITS_PER_MAINTENANCE = 200  # small files and unindexed rows slow every search down


@dataclass
class Change:
    """Rows to upsert, or ids to delete, and who waits for them."""

    rows: pa.Table | None = None
    deleted: list[str] = field(default_factory=list)
    done: Future[None] = field(default_factory=Future)


class TableWriter:
    """Upserts and deletes rows of one search table.

    Args:
        uri: of the table.
        lock: held around each commit, where several processes write; None: no lock.
        group_s: seconds that a commit waits for further changes.
        maintain: called from time to time between two commits, to merge small files and to take
            new rows into the indexes.
    """

    def __init__(
        self,
        uri: str,
        lock: Callable[[], AbstractContextManager[None]] | None = None,
        group_s: float = GROUP_S,
        maintain: Callable[[], None] | None = None,
    ) -> None:
        self._uri, self._lock, self._group_s = uri, lock or nullcontext, group_s
        self._maintain = maintain
        self._schema = lance.dataset(uri).schema
        self._changes: queue.Queue[Change | None] = queue.Queue()
        self._commits = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def upsert(self, rows: pa.Table) -> None:
        """Insert rows, replacing those with the same sample_id; return once they are durable.

        Args:
            rows: some or all columns of the table, with sample_id, domain, vector and fingerprint;
                columns that are missing become null.

        Raises:
            ValueError: a row has no sample_id, domain, vector or fingerprint, or a column has
                another type.
        """
        self._wait_for(Change(rows=checked(rows, self._schema)))

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete rows; ids that there are not are ignored. Return once it is durable."""
        self._wait_for(Change(deleted=list(sample_ids)))

    def close(self) -> None:
        """Commit what is waiting, and stop."""
        self._changes.put(None)
        self._thread.join()

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_for(self, change: Change) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the writer is closed")
        self._changes.put(change)
        change.done.result()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if not group:
                continue
            try:
                self._commit(group)
            except Exception as error:  # raised again where the changes were asked for
                for change in group:
                    change.done.set_exception(error)
            else:
                for change in group:
                    change.done.set_result(None)
                self._commits += 1
                if self._maintain and self._commits % COMMITS_PER_MAINTENANCE == 0:
                    self._maintain()

    def _next_group(self) -> tuple[list[Change], bool]:
        """Changes that arrive within a short time, and whether the writer stays open."""
        first = self._changes.get()
        if first is None:
            return [], False
        group, end = [first], time.monotonic() + self._group_s
        while len(group) < MAX_GROUP:
            try:
                change = self._changes.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if change is None:
                return group, False
            group.append(change)
        return group, True

    def _commit(self, group: list[Change]) -> None:
        """Write a group's changes, at most one upsert and one deletion; later changes win."""
        last: dict[str, pa.Table | None] = {}
        for change in group:
            if change.rows is not None:
                for at, name in enumerate(change.rows[KEY].to_pylist()):
                    last[name] = change.rows.slice(at, 1)
            last |= dict.fromkeys(change.deleted)
        upserted = [row for row in last.values() if row is not None]
        deleted = [name for name, row in last.items() if row is None]
        with self._lock():
            if upserted:
                # By an index, Lance would not record the keys that another process must see.
                merge = lance.dataset(self._uri).merge_insert(KEY).use_index(False)
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
