"""One table of a workspace: a Lance dataset with a key.

Several processes may write a table at once. Its key is marked in the schema, so two merges that
insert the same key conflict, and Lance repeats the later one on the new version. Every write is one
atomic commit, so a killed job leaves complete batches.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.dataset import MergeInsertBuilder
from lance.file import LanceFileReader
from lance.fragment import FragmentMetadata, write_fragments
from lance.optimize import Compaction, CompactionTask, RewriteResult

from ampere.records import TableSpec
from ampere.store.locks import check_locks
from ampere.uris import is_uri

T = TypeVar("T")
ATTEMPTS = 5  # at a change that others come before
MergeTask = tuple[str, int, CompactionTask]  # the arguments of `merge`
RunTasks = Callable[[list[MergeTask]], list[RewriteResult]]
KEEP_VERSIONS = timedelta(days=7)  # a training reads the version that it started on to its end


class Table:
    """Reads, upserts and deletes of one table. Before the first write it reads as empty."""

    def __init__(self, uri: str, spec: TableSpec) -> None:
        self.uri = uri
        self.spec = spec

    def dataset(self, version: int | None = None) -> lance.LanceDataset | None:
        """The dataset at its newest (or a given) version; None before the first write."""
        try:
            return lance.dataset(self.uri, version=version)
        except (FileNotFoundError, ValueError) as error:
            # Some stores raise ValueError("... was not found"). Other errors mean a broken table.
            if isinstance(error, ValueError) and "not found" not in str(error):
                raise
            return None

    def read(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Read rows in storage order.

        Args:
            columns: names of the columns; None: all.
            where: a condition such as `pc.field("domain") == "page"`; None: all rows.
        """
        dataset = self.dataset()
        if dataset is None:
            schema = self.schema()
            return (
                schema if columns is None else pa.schema([schema.field(c) for c in columns])
            ).empty_table()
        return dataset.to_table(columns=None if columns is None else list(columns), filter=where)

    def schema(self) -> pa.Schema:
        """The columns of the table, with the catalog's further ones if it has any."""
        dataset = self.dataset() if self.spec.has_extra_columns else None
        return self.spec.schema if dataset is None else dataset.schema

    def extra_columns(self) -> list[pa.Field]:
        """The catalog's further columns, behind those of the spec."""
        own = set(self.spec.schema.names)
        return [field for field in self.schema() if field.name not in own]

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Add further columns that the table does not have, null in every row."""

        def add() -> None:
            names = self.schema().names
            if new := [field for field in fields if field.name not in names]:
                self.create()
                check_locks()
                self._existing().add_columns(pa.schema(new))

        retried(add)

    def count(self, where: pc.Expression | None = None) -> int:
        """Number of rows that meet a condition; None: of all rows."""
        dataset = self.dataset()
        return 0 if dataset is None else dataset.count_rows(filter=where)

    def data_bytes(self) -> int:
        """Bytes of the data files of the newest version; earlier versions may keep more files."""
        dataset = self.dataset()
        fragments = [] if dataset is None else dataset.get_fragments()
        return sum(file.file_size_bytes or 0 for f in fragments for file in f.data_files())

    def upsert(self, rows: pa.Table | Sequence[dict[str, Any]], *, is_locked: bool = False) -> None:
        """Insert rows in one commit, replacing rows with the same key.

        Args:
            rows: the rows.
            is_locked: no other process inserts rows meanwhile, so that keys are looked up by their
                index. That pays in large tables without large values; see `_merge`.

        Raises:
            ValueError: a row has no key, or two of the rows have the same key.
        """
        if (rows := self._checked(rows)).num_rows:
            merge = self._merge(by_index=is_locked).when_matched_update_all()
            check_locks()
            merge.execute(rows)

    def update_columns(self, rows: pa.Table) -> None:
        """Write some columns of rows that exist, in one commit; the other columns stay.

        Args:
            rows: the key columns and those to write.
        """
        dataset = self.dataset()
        if dataset is not None and rows.num_rows:
            fields = [dataset.schema.field(name) for name in rows.column_names]
            merge = dataset.merge_insert(list(self.spec.key)).when_matched_update_all()
            check_locks()
            merge.execute(rows.cast(pa.schema(fields)))

    def append(self, rows: pa.Table | Sequence[dict[str, Any]]) -> None:
        """Insert rows in one commit, leaving out rows whose key is in the table already.

        Raises:
            ValueError: a row has no key, or two of the rows have the same key.
        """
        if (rows := self._checked(rows)).num_rows:
            merge = self._merge()
            check_locks()
            merge.execute(rows)

    def write_fragment(self, rows: pa.Table) -> str:
        """Write a data file of a table that exists; it is part of the table once it is appended.

        Any process may do this. Lance deletes a file that is never appended after seven days.

        Returns:
            Metadata of the file, as JSON.

        Raises:
            ValueError: a row has no key, or two of the rows have the same key.
        """
        rows = self._checked(rows)
        (fragment,) = write_fragments(rows, self.uri, schema=rows.schema, mode="append")
        return json.dumps(fragment.to_json())

    def append_fragments(self, fragments: Sequence[str], checked: int) -> None:
        """Insert the rows of files that `write_fragment` wrote, in one commit.

        Lance does not check the keys of an append. The caller leaves out rows that are in the
        table; those that another process has inserted since are deleted again.

        Args:
            fragments: metadata of the files.
            checked: id of the newest fragment that the caller has looked into.
        """
        if not fragments:
            return
        appended = [FragmentMetadata.from_json(fragment) for fragment in fragments]
        dataset = self._existing()
        check_locks()
        dataset = lance.LanceDataset.commit(
            dataset, lance.LanceOperation.Append(appended), read_version=dataset.version
        )
        paths = {file.path for fragment in appended for file in fragment.files}
        new = _fragments_after(checked, dataset)
        own = [f for f in new if any(file.path in paths for file in f.data_files())]
        others = [f for f in new if f not in own]
        if others and own:
            rows = dataset.scanner(columns=["sample_id"], fragments=others).to_table()
            doubled = pc.field("sample_id").isin(rows["sample_id"].to_pylist())
            places = dataset.scanner(
                columns=[], filter=doubled, fragments=own, with_row_id=True
            ).to_table()["_rowid"]
            if len(places):
                dataset.delete(f"_rowid IN ({', '.join(map(str, places.to_pylist()))})")

    def fragment_of(self, ids: Sequence[str], fragment: str) -> str:
        """A fragment with the rows of some sample ids alone; a given one, if it has no others."""
        metadata = FragmentMetadata.from_json(fragment)
        if metadata.physical_rows == len(ids):
            return fragment
        (file,) = metadata.files
        rows = LanceFileReader(f"{self.uri}/data/{file.path}").read_all().to_table()
        return self.write_fragment(rows.filter(pc.field("sample_id").isin(ids)))

    def newest_fragment(self) -> int:
        """Id of the newest fragment; later ones have higher ids. -1 if there is none."""
        dataset = self.dataset()
        fragments = [] if dataset is None else dataset.get_fragments()
        return max((f.fragment_id for f in fragments), default=-1)

    def ids_after(self, fragment: int, where: pc.Expression | None) -> tuple[set[str], int]:
        """Sample ids of the rows in fragments after a given one, and the id of the newest.

        Args:
            fragment: id of a fragment.
            where: a condition on the rows; None: all rows.
        """
        dataset = self.dataset()
        if dataset is None:
            return set(), fragment
        new = _fragments_after(fragment, dataset)
        if not new:
            return set(), fragment
        rows = dataset.scanner(columns=["sample_id"], filter=where, fragments=new).to_table()
        return set(rows["sample_id"].to_pylist()), max(f.fragment_id for f in new)

    def create(self) -> None:
        """Create the table, empty, if it does not exist.

        Of two processes that create a table at once, Lance lets the second one replace the first
        one's, with what was written to it. A local folder is created aside and renamed instead.
        """
        if self.dataset() is not None:
            return
        if not is_uri(self.uri):
            parent = Path(self.uri).parent
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(suffix=".new", dir=parent) as scratch:
                created = Path(scratch) / "table"
                self._write_empty(str(created))
                with contextlib.suppress(OSError):  # there is a folder already
                    created.rename(self.uri)
                    return
            if self.dataset() is not None:  # created by another process meanwhile
                return
        try:
            self._write_empty(self.uri)
        except OSError as error:
            if "already exists" not in str(error):
                raise

    def _write_empty(self, uri: str) -> None:
        check_locks()
        lance.write_dataset(
            self.spec.schema.empty_table(),
            uri,
            mode="create",
            enable_stable_row_ids=self.spec.has_stable_row_ids,
        )

    def _merge(self, *, by_index: bool = False) -> MergeInsertBuilder:
        """A merge that inserts rows with new keys; the table is created if it does not exist.

        It reads all keys: 30 ms for 1,000,000, 230 ms for 10,000,000. By an index it would take
        7 ms, but then Lance does not record the new keys, and two processes would insert the same
        one twice. It would also copy large values: 1.5 s for 256 rows of 100 kB, not 0.1 s.
        """
        self.create()
        merge = self._existing().merge_insert(list(self.spec.key)).use_index(by_index)
        return merge.when_not_matched_insert_all()

    def _existing(self) -> lance.LanceDataset:
        dataset = self.dataset()
        assert dataset is not None, f"{self.uri} was created before"
        return dataset

    def _checked(self, rows: pa.Table | Sequence[dict[str, Any]]) -> pa.Table:
        """Cast rows to the table's schema and check that their keys are there, and unique.

        A further column that came since the rows were made is null in them.
        """
        schema, key = self.schema(), list(self.spec.key)
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pylist(list(rows), schema=schema)
        own = set(self.spec.schema.names)
        for field in schema:
            if field.name not in own and field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        rows = rows.select(schema.names)
        for column in key:
            if count := rows[column].null_count:
                raise ValueError(
                    f"table {self.spec.name}: {count} of {rows.num_rows} rows have no {column}; "
                    f"expected a value in each column of the key {self.spec.key}"
                )
        keys = rows.select(key)
        if keys.group_by(key).aggregate([]).num_rows != rows.num_rows:
            raise ValueError(
                f"table {self.spec.name}: two rows of one batch have the same key {self.spec.key}"
            )
        return rows.cast(schema).combine_chunks()

    def delete(self, where: pc.Expression) -> None:
        """Delete the rows that meet a condition."""
        dataset = self.dataset()
        if dataset is not None:
            check_locks()
            dataset.delete(where)

    def compact(self, run: RunTasks | None = None) -> None:
        """Merge the small files of small commits, index their rows, and delete old versions.

        Args:
            run: as of `merge_files`.
        """
        dataset = self.dataset()
        if dataset is None:
            return
        try:
            self._index(dataset)  # first: files with and without index are not merged
        except OSError as error:
            if not is_conflict(error):
                raise
            return
        if self.merge_files(run):
            dataset = self._existing()
            # A version ages from its replacement on; Lance's own limit counts from its commit.
            limit = datetime.now() - KEEP_VERSIONS
            if old := [
                version["version"]
                for version, next_version in pairwise(dataset.versions())
                if next_version["timestamp"] < limit
            ]:
                # The tagged ones, which bases of indexes were built at, stay.
                dataset.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False)

    def merge_files(self, run: RunTasks | None = None, rows_per_file: int | None = None) -> bool:
        """Merge the small files of small commits.

        If another process changed the same files at the same time, this is left to the next job.

        Args:
            run: runs `merge` for tasks of a dataset, in any processes; None: in this one.
            rows_per_file: files up to this many rows are merged; None: as the spec has it.

        Returns:
            Whether there was more than one file, and no conflict.
        """
        dataset = self.dataset()
        if dataset is None or len(dataset.get_fragments()) < 2:
            return False
        size = rows_per_file or self.spec.rows_per_file
        plan = Compaction.plan(dataset, {"target_rows_per_fragment": size})
        tasks = [(self.uri, plan.read_version, task) for task in plan.tasks]
        try:
            merged = run(tasks) if run else [merge(*task) for task in tasks]
            if merged:
                check_locks()
                Compaction.commit(dataset, merged)
        except OSError as error:
            if not is_conflict(error):
                raise
            return False
        return True

    def _index(self, dataset: lance.LanceDataset) -> None:
        """Index `indexed_column`; rows that are not in the index are found by a scan."""
        if (column := self.spec.indexed_column) is None:
            return
        check_locks()
        if dataset.describe_indices():
            dataset.optimize.optimize_indices()
        else:
            dataset.create_scalar_index(column, "BTREE")


def merge(uri: str, version: int, task: CompactionTask) -> RewriteResult:
    """Merge some files of a table into one, that is not part of the table yet."""
    return task.execute(lance.dataset(uri, version=version))


def retried(change: Callable[[], T]) -> T:
    """The result of a change, made again if a change of another process came before it.

    Lance merges most changes of two processes by itself, but not new columns and indexes.

    Args:
        change: reads the newest version, and commits.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return change()
        except OSError as error:
            if not is_conflict(error):
                raise
    return change()


def _fragments_after(fragment: int, dataset: lance.LanceDataset) -> list[lance.LanceFragment]:
    """The fragments of a dataset with higher ids, which are later ones."""
    return [f for f in dataset.get_fragments() if f.fragment_id > fragment]


def is_conflict(error: OSError) -> bool:
    """Whether another process changed the same files at the same time."""
    return "commit conflict" in str(error)


# Ids per condition. Longer conditions are not faster and take more memory: to delete 500,000 of
# 1,000,000 rows took 9.3 s and 0.1 GB with 5,000 ids per condition, 3.2 s and 0.1 GB with 50,000,
# 2.9 s and 0.9 GB with one condition. An index on the ids changes little.
IDS_PER_CONDITION = 50_000
