"""One table of a workspace: a Lance data set with a key.

Writes go through one process per table (`Workspace.lock`): Lance's concurrent upserts do not see each other's new
keys and would double rows without an error. Every write is one atomic commit, so a killed job leaves whole batches.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import lance
import pyarrow as pa

from ampere.records import TableSpec

KEEP_VERSIONS = timedelta(days=7)  # a training that started on a version reads it to its end


class Table:
    """Reads and upserts of one table. It exists on disk from the first write on; before that it reads as empty."""

    def __init__(self, uri: str, spec: TableSpec) -> None:
        self.uri = uri
        self.spec = spec

    def dataset(self, version: int | None = None) -> lance.LanceDataset | None:
        """The data set at its newest (or a given) version, or None before the first write."""
        try:
            return lance.dataset(self.uri, version=version)
        except (FileNotFoundError, ValueError) as error:
            # Lance raises ValueError("... was not found") on some stores; anything else is a broken table.
            if isinstance(error, ValueError) and "not found" not in str(error):
                raise
            return None

    def read(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows in storage order.

        Args:
            columns: which columns; None: all.
            where: an SQL condition such as "domain = 'page'".
        """
        dataset = self.dataset()
        if dataset is None:
            schema = self.spec.schema
            return (
                schema if columns is None else pa.schema([schema.field(c) for c in columns])
            ).empty_table()
        return dataset.to_table(columns=None if columns is None else list(columns), filter=where)

    def count(self, where: str | None = None) -> int:
        dataset = self.dataset()
        return 0 if dataset is None else dataset.count_rows(filter=where)

    def upsert(self, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
        """Insert rows, replacing those with the same key, in one commit.

        Raises:
            ValueError: two of the rows have the same key.
        """
        rows = self._checked(rows)
        dataset = self.dataset()
        if dataset is None:
            self._append(rows)
        elif rows.num_rows:
            merge = dataset.merge_insert(list(self.spec.key))
            merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def append(self, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
        """Insert rows whose keys are known not to be there, in one commit that costs the same on any table.

        Raises:
            ValueError: two of the rows have the same key.
        """
        self._append(self._checked(rows))

    def create(self) -> None:
        """Make it, empty, if it is not there."""
        if self.dataset() is None:
            lance.write_dataset(
                self.spec.schema.empty_table(), self.uri, schema=self.spec.schema, mode="create"
            )

    def _append(self, rows: pa.Table) -> None:
        if rows.num_rows:
            mode = "create" if self.dataset() is None else "append"
            lance.write_dataset(rows, self.uri, schema=self.spec.schema, mode=mode)

    def _checked(self, rows: pa.Table | Sequence[dict[str, Any]]) -> pa.Table:
        """Rows as the table's schema has them, each key once."""
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pylist(list(rows), schema=self.spec.schema)
        rows = rows.select(self.spec.schema.names).cast(self.spec.schema).combine_chunks()
        keys = rows.select(list(self.spec.key))
        if keys.group_by(keys.column_names).aggregate([]).num_rows != rows.num_rows:
            raise ValueError(
                f"table {self.spec.name}: two rows of one batch have the same key {self.spec.key}"
            )
        return rows

    def delete(self, where: str) -> None:
        """Delete the rows that meet an SQL condition."""
        dataset = self.dataset()
        if dataset is not None:
            dataset.delete(where)

    def compact(self) -> None:
        """Merge the many small files that small commits leave, and drop old versions that nobody can be reading.

        Where another process wrote the same rows meanwhile, which a lock on a cloud store does not keep it from, they
        are left to the next job.
        """
        dataset = self.dataset()
        if dataset is not None and len(dataset.get_fragments()) > 1:
            try:
                dataset.optimize.compact_files(target_rows_per_fragment=self.spec.rows_per_file)
            except OSError as error:
                if "commit conflict" not in str(error):
                    raise
                return
            # A version is old from the time when another took its place; Lance's own limit counts from its commit.
            limit = datetime.now() - KEEP_VERSIONS
            found = dataset.versions()
            if old := [
                version["version"]
                for version, after in pairwise(found)
                if after["timestamp"] < limit
            ]:
                dataset.cleanup_old_versions(versions=old)


IDS_AT_ONCE = 500  # of one condition; a longer one takes more time and memory than several


def sql_in(column: str, values: Sequence[str]) -> str:
    """An SQL condition that `column` is one of `values`; quotes in values are escaped."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
