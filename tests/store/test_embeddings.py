"""Search tables: their columns follow the samples, and their indexes cover all columns."""

import inspect

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.catalog.extra_columns import TYPES
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.embeddings import (
    SearchColumns,
    create_embeddings,
    differs,
    embedding_tables,
    index_columns,
    maintain,
    refresh_columns,
)
from ampere.store.table import Table
from ampere.store.workspace import Workspace

EXTRA = [pa.field(name.replace(" ", "_"), kind) for name, kind in TYPES.items()]


@pytest.fixture
def catalog(workspace: Workspace) -> Workspace:
    """A page and a clip with a column of each type."""
    samples = workspace.table(SAMPLES)
    samples.add_columns(EXTRA)
    columns = {"split": "test", "origin": "catalog", "product_id": "p", "text": "绿 茶"}
    samples.upsert(
        [
            columns | {"sample_id": "page", "domain": "page", "media_uris": ["/a.jpg", "/b.jpg"]},
            columns | {"sample_id": "clip", "domain": "live", "media_uris": [], "number": 3.0},
        ]
    )
    workspace.table(SUMMARIES).upsert(
        [{"sample_id": "clip", "method": "llm", "model": "small", "text": "summary"}]
    )
    return workspace


def embedded(workspace: Workspace) -> Table:
    """The table of a model with a vector of each sample, and no columns yet."""
    table = create_embeddings(workspace, "m@1", 4)
    table.upsert(
        [
            {"sample_id": name, "vector": vector, "fingerprint": f"{at:016x}"}
            for at, (name, vector) in enumerate(zip(("page", "clip"), np.eye(4), strict=False))
        ]
    )
    return table


def columns(table: Table, name: str) -> dict[str, object]:
    (row,) = table.read(where=pc.field("sample_id") == name).to_pylist()
    return row


def row_ids(table: Table) -> dict[str, int]:
    """Sample id -> Lance's stable row id."""
    dataset = table.dataset()
    assert dataset is not None
    rows = dataset.to_table(columns=["sample_id"], with_row_id=True)
    return dict(zip(rows["sample_id"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))


def test_columns_come_from_samples_and_summaries(catalog: Workspace) -> None:
    table = embedded(catalog)
    assert refresh_columns(table, SearchColumns(catalog, "llm", "")) == 2
    page, clip = columns(table, "page"), columns(table, "clip")
    assert page["text"] == "绿 茶" and page["media_uri"] == "/a.jpg"
    assert clip["text"] == "summary" and clip["media_uri"] is None and clip["number"] == 3
    assert page["product_id"] == "p" and clip["domain"] == "live" and clip["origin"] == "catalog"
    assert table.schema().field("vector").type == pa.list_(pa.float32(), 4)
    assert embedding_tables(catalog) == ["m@1"]


def test_changed_column_is_updated_without_its_vector(catalog: Workspace) -> None:
    table = embedded(catalog)
    refresh_columns(table, SearchColumns(catalog, "raw", ""))
    assert refresh_columns(table, SearchColumns(catalog, "raw", "")) == 0
    samples = catalog.table(SAMPLES)
    (row,) = samples.read(where=pc.field("sample_id") == "clip").to_pylist()
    samples.upsert([row | {"number": 4.0, "list_of_texts": ["new"]}])
    ids = row_ids(table)
    assert refresh_columns(table, SearchColumns(catalog, "raw", "")) == 1
    clip = columns(table, "clip")
    assert clip["number"] == 4 and clip["list_of_texts"] == ["new"]
    assert clip["vector"] == [0, 1, 0, 0] and clip["fingerprint"] == f"{1:016x}"
    assert row_ids(table) == ids


def test_later_column_of_the_catalog_is_added_and_indexed(catalog: Workspace) -> None:
    table = embedded(catalog)
    catalog.table(SAMPLES).add_columns([pa.field("shop", pa.string())])
    refresh_columns(table, SearchColumns(catalog, "raw", ""))
    assert "shop" in table.schema().names and columns(table, "page")["shop"] is None
    assert "shop" in indexed(table)


def indexed(table: Table) -> dict[str, str]:
    """Column -> type of its index."""
    dataset = table.dataset()
    assert dataset is not None
    return {index.field_names[0]: index.index_type for index in dataset.describe_indices()}


def test_all_columns_that_filters_name_have_an_index(catalog: Workspace) -> None:
    assert indexed(embedded(catalog)) == {
        "sample_id": "BTree",
        "product_id": "BTree",
        "text": "Inverted",
        "number": "BTree",
        "time": "BTree",
        "domain": "Bitmap",
        "split": "Bitmap",
        "origin": "Bitmap",
        "boolean": "Bitmap",
        "list_of_texts": "LabelList",
        **{"text": "Inverted"},
    }


def test_maintained_table_has_all_rows_indexed_and_no_further_version(catalog: Workspace) -> None:
    table = embedded(catalog)
    maintain(table)
    dataset = table.dataset()
    assert dataset is not None
    assert {index.num_rows_indexed for index in dataset.describe_indices()} == {2}
    maintain(table)
    again = table.dataset()
    assert again is not None and again.version == dataset.version


def test_model_without_text_searches_words_in_summaries(catalog: Workspace) -> None:
    table = embedded(catalog)
    refresh_columns(table, SearchColumns(catalog, "none", ""))
    assert columns(table, "clip")["text"] == "summary"
    catalog.table(SUMMARIES).delete(pc.scalar(True))
    refresh_columns(table, SearchColumns(catalog, "none", ""))
    assert columns(table, "clip")["text"] == "绿茶"  # a transcript: its spaces mean nothing
    assert columns(table, "page")["text"] == "绿 茶"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["a", None, "b", None], ["a", None, "c", "d"], [False, False, True, True]),
        ([[1.0], None, [], [2.0]], [[1.0], [], [], [3.0]], [False, True, False, True]),
    ],
)
def test_differing_values(first: list, second: list, expected: list[bool]) -> None:
    one, other = (pa.chunked_array([pa.array(values)]) for values in (first, second))
    assert differs(one, other).to_pylist() == expected


def test_live_change_during_a_refresh_keeps_its_columns(
    catalog: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = embedded(catalog)
    read, came = SearchColumns.of, list[bool]()

    def read_then_live(current: SearchColumns, ids: pa.Array) -> pa.Table:
        rows = read(current, ids)
        if not came:
            came.append(True)
            live = {"sample_id": "page", "domain": "page", "origin": "live", "text": "live"}
            catalog.table(SAMPLES).upsert([live | {"media_uris": []}])
            table.upsert([live | {"vector": [0.0, 1.0, 0.0, 0.0], "fingerprint": "f"}])
        return rows

    monkeypatch.setattr(SearchColumns, "of", read_then_live)
    refresh_columns(table, SearchColumns(catalog, "raw", ""))
    row = columns(table, "page")
    assert (row["origin"], row["text"], row["fingerprint"]) == ("live", "live", "f")


def test_columns_and_indexes_are_added_beside_changes(
    catalog: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of another process comes before each first attempt, which Lance then refuses."""
    table, dataset = embedded(catalog), Table.dataset
    opened: dict[str, int] = {}

    def stale(self: Table, version: int | None = None) -> lance.LanceDataset | None:
        found = dataset(self, version)
        caller = inspect.stack()[1].function
        if caller in ("_existing", "_index_column") and not opened.setdefault(caller, 0):
            opened[caller] = 1
            change = lance.dataset(table.uri)
            change.optimize.compact_files() if caller == "_index_column" else change.delete("false")
        return found

    table.upsert([{"sample_id": "new", "vector": [1.0, 0.0, 0.0, 0.0], "fingerprint": "f"}])
    monkeypatch.setattr(Table, "dataset", stale)
    table.add_columns([pa.field("brand", pa.string())])
    index_columns(table)
    assert opened.keys() == {"_existing", "_index_column"} and "brand" in table.schema().names


def test_column_that_came_since_rows_were_made_is_null_in_them(catalog: Workspace) -> None:
    table = embedded(catalog)
    rows = table.read(where=pc.field("sample_id") == "page")
    table.add_columns([pa.field("brand", pa.string())])
    table.upsert(rows)
    assert columns(table, "page")["brand"] is None
