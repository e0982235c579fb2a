"""The search tables: one Lance table of embeddings for each model and its weights.

embeddings/ampere@3f2a8c01.lance

Beside the vectors a table has the columns that a search filters, groups, counts and shows, among
them all further columns of the catalog. They follow the `samples` table: `refresh_columns` updates
those that changed, without embedding anything again.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import TextSource
from ampere.records import EMBEDDINGS, SAMPLES, Domain, TableSpec
from ampere.store.locks import check_locks
from ampere.store.table import Table, is_conflict, retried
from ampere.store.texts import chosen_model, summary_models, texts_of
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text

FOLDER = "embeddings"
VECTORS = ("vector", "frames_vector", "text_vector")
# Columns that follow the samples and their texts.
SAMPLE_COLUMNS = ("domain", "product_id", "split", "origin", "text", "media_uri")
ROWS_PER_REFRESH = 10_000
LIVE_ROWS_PER_FILE = 20_000  # of the files that are merged beside live changes
MAX_SEGMENTS = 16  # of an index, beside live changes
ATTEMPTS_TO_MERGE = 3  # while changes come in between
# ICU knows the words of Chinese and needs no dictionary of its own; Lance's default tokenizer
# takes a run of Chinese characters for one word.
TOKENIZER = "icu"


def embeddings_spec(name: str) -> TableSpec:
    """The table of a model.

    Args:
        name: of the model with the checksum of its weights, as `embedding_name`.
    """
    return dataclasses.replace(EMBEDDINGS, name=f"{FOLDER}/{name}")


def embedding_tables(workspace: Workspace) -> list[str]:
    """Names of the models, with their weights, that have a table."""
    suffix = ".lance"
    names = workspace.names(FOLDER)
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def create_embeddings(workspace: Workspace, name: str, dim: int) -> Table:
    """The table of a model, created with its indexes if it does not exist.

    Args:
        workspace: with the samples, whose further columns it takes over.
        name: see `embeddings_spec`.
        dim: of the vectors.
    """
    table = workspace.table(embeddings_spec(name))
    if table.dataset() is None:
        vector = pa.list_(pa.float32(), dim)
        fields = [
            field.with_type(vector) if field.name in VECTORS else field
            for field in EMBEDDINGS.schema
        ]
        schema = pa.schema([*fields, *workspace.table(SAMPLES).extra_columns()])
        check_locks()
        lance.write_dataset(
            schema.empty_table(), table.uri, schema=schema, enable_stable_row_ids=True
        )
        index_columns(table)
    return table


def index_columns(table: Table) -> None:
    """Create the indexes of columns that have none: for filters, and for words.

    Rows that come later are searched in any case, and are indexed when the table is maintained.
    """
    for field in table.schema():
        if index_type(field) is not None:
            retried(functools.partial(_index_column, table, field))


def _index_column(table: Table, field: pa.Field) -> None:
    dataset = table.dataset()
    assert dataset is not None
    if any(field.name in index.field_names for index in dataset.describe_indices()):
        return
    kind = index_type(field)
    words = {"base_tokenizer": TOKENIZER, "with_position": False} if kind == "INVERTED" else {}
    check_locks()
    dataset.create_scalar_index(field.name, kind, **words)


def index_type(field: pa.Field) -> str | None:
    """The type of a column's index; None: it has none."""
    if field.name in ("fingerprint", "media_uri", *VECTORS):
        return None
    if field.name == "text":
        return "INVERTED"
    if field.name in ("domain", "split", "origin") or pa.types.is_boolean(field.type):
        return "BITMAP"
    return "LABEL_LIST" if pa.types.is_list(field.type) else "BTREE"


def maintain(table: Table) -> None:
    """Merge small files, and take rows that came since into the indexes.

    What conflicts with a change of another process is left to the next time.
    """
    _index_new_rows(table)
    table.compact()


def maintain_live(table: Table, lock: Callable[[], AbstractContextManager[object]]) -> None:
    """The same beside live changes: files of the night stay, which take long to rewrite.

    Args:
        table: of embeddings.
        lock: that keeps changes out. It is held, for a moment, only if merging files conflicted
            with changes that came meanwhile.
    """
    _index_new_rows(table, MAX_SEGMENTS)
    for _ in range(ATTEMPTS_TO_MERGE):
        if table.merge_files(rows_per_file=LIVE_ROWS_PER_FILE):
            return
    with lock():
        table.merge_files(rows_per_file=LIVE_ROWS_PER_FILE)


def _index_new_rows(table: Table, max_segments: int = 0) -> None:
    """Index rows that came since, before files are merged: those with and without stay apart.

    Args:
        table: of embeddings.
        max_segments: of an index; until there are as many, new rows are a segment of their own.
            0: they are merged into the index at once, which takes seconds in a large table.
    """
    dataset = table.dataset()
    if dataset is None:
        return
    rows = dataset.count_rows()
    try:
        indices = dataset.describe_indices()
        if any(index.num_rows_indexed < rows for index in indices):
            segments = max(len(index.segments) for index in indices)
            merged = {"num_indices_to_merge": 0} if segments < max_segments else {}
            check_locks()
            dataset.optimize.optimize_indices(**merged)
    except OSError as error:
        if not is_conflict(error):
            raise


class SearchColumns:
    """The current values of `SAMPLE_COLUMNS` and of the catalog's further columns.

    Args:
        workspace: with the samples and summaries.
        source: what the model reads as text.
        summary_model: whose summaries it reads; empty: the only one's.
    """

    def __init__(self, workspace: Workspace, source: TextSource, summary_model: str) -> None:
        self.workspace = workspace
        if source == "none":  # words are searched in what a model with texts would read
            source = "llm" if summary_models(workspace, "llm") else "raw"
            summary_model = next(iter(summary_models(workspace, source)), "")
        self._source = source
        self._summary_model = chosen_model(workspace, source, summary_model)
        self.extra = [field.name for field in workspace.table(SAMPLES).extra_columns()]

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [*SAMPLE_COLUMNS, *self.extra]

    def of(self, ids: pa.Array) -> pa.Table:
        """The columns of some samples, in their order; null for a sample that was removed."""
        columns = [name for name in SAMPLE_COLUMNS if name not in ("text", "media_uri")]
        rows = self.workspace.table(SAMPLES).read(
            ["sample_id", *columns, "media_uris", *self.extra],
            pc.field("sample_id").isin(ids),
        )
        rows = rows.take(pc.index_in(ids, value_set=rows["sample_id"].combine_chunks()))
        texts = texts_of(self.workspace, self._source, ids, self._summary_model).to_pylist()
        if self._source == "raw":  # speech recognition may put a space after every character
            is_clip = pc.not_equal(rows["domain"], str(Domain.PAGE)).to_pylist()
            texts = [
                readable_text(text) if clip else text
                for text, clip in zip(texts, is_clip, strict=True)
            ]
        uris = [uris[0] if uris else None for uris in rows["media_uris"].to_pylist()]
        rows = rows.drop(["sample_id", "media_uris"])
        rows = rows.append_column("text", pa.array(texts, pa.string()))
        return rows.append_column("media_uri", pa.array(uris, pa.string())).select(self.names)


def add_search_columns(batch: pa.Table, columns: SearchColumns) -> pa.Table:
    """Result rows of the embed stage with the columns of their samples."""
    current = columns.of(batch["sample_id"].combine_chunks())
    for name in current.column_names:
        if name in batch.column_names:
            batch = batch.set_column(batch.column_names.index(name), name, current[name])
        else:
            batch = batch.append_column(name, current[name])
    return batch


def refresh_columns(table: Table, columns: SearchColumns) -> int:
    """Update the columns of rows whose samples or texts changed; return the number of rows.

    Only columns that changed are written, so vectors stay as they are.
    """
    if table.dataset() is None:
        return 0
    table.add_columns(columns.workspace.table(SAMPLES).extra_columns())
    index_columns(table)
    count = 0
    for stored in _slices(table, columns.names):
        current = columns.of(stored["sample_id"].combine_chunks())
        changed = pa.array([False] * stored.num_rows)
        for name in columns.names:
            changed = pc.or_(changed, differs(stored[name], current[name]))
        if any(changed.to_pylist()):
            ids = stored["sample_id"].filter(changed).combine_chunks()
            # Read again where no live change can come in between: its row would get old columns.
            with columns.workspace.commit_lock(table.spec.name):
                table.update_columns(columns.of(ids).append_column("sample_id", [ids]))
            count += len(ids)
    return count


def _slices(table: Table, names: list[str]) -> Iterator[pa.Table]:
    """The rows of the version of now, a part at a time."""
    dataset = table.dataset()
    assert dataset is not None, "the caller found the table"
    for batch in dataset.to_batches(columns=["sample_id", *names], batch_size=ROWS_PER_REFRESH):
        yield pa.Table.from_batches([batch])


def differs(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.Array:
    """Where two columns differ, bool [N]; null equals null alone."""
    if pa.types.is_list(first.type):
        return pa.array(
            [a != b for a, b in zip(first.to_pylist(), second.to_pylist(), strict=True)]
        )
    either_null = pc.or_(pc.is_null(first), pc.is_null(second))
    both_null = pc.and_(pc.is_null(first), pc.is_null(second))
    unequal = pc.if_else(either_null, pc.invert(both_null), pc.not_equal(first, second))
    return pc.fill_null(unequal, False).combine_chunks()
