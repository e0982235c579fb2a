"""Types of further columns: from cells, over files, and against those of the workspace."""

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from ampere.catalog.extra_columns import TYPES, Cell, ColumnTypes, types_of


def column_type(*cells: Any) -> str | None:
    """Name of the type that a column with some cells gets; None: it is not stored."""
    types = ColumnTypes()
    for number, cell in enumerate(cells, start=1):
        types.add({"column": cell}, f"m:{number}")
    names = {kind: name for name, kind in TYPES.items()}
    return names[types.fields()[0].type] if types.fields() else None


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["9", "9.50", "-1e3", ".5", ""], "number"),
        (["9", "9 yuan"], "text"),
        (["007", "1"], "text"),  # an id
        (["12345678901234567890"], "text"),  # no float64 holds it
        (["true", "False", "TRUE"], "boolean"),
        (["true", "1"], "text"),
        (["2026-11-29", "2026-11-29T12:00:00Z"], "time"),
        (["2026-11-29", "2026"], "text"),
        (["2026-13-29"], "text"),
        (['["a", "b"]', "[]"], "list of texts"),
        (["[1]"], "text"),
        (["nan", "inf"], "text"),
        (["", ""], None),
    ],
)
def test_csv_columns_get_the_type_that_all_cells_fit(cells: list[str], expected: str) -> None:
    assert column_type(*map(Cell, cells)) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([9, 9.5, None, math.nan], "number"),
        ([True, None], "boolean"),
        (["9", "10"], "text"),  # JSON says that it is text
        (["2026-11-29T12:00:00+08:00"], "time"),
        ([["a", None], []], "list of texts"),
        ([{"a": 1}, [1, 2]], "text"),  # kept as JSON
        ([2**53 + 1], "text"),
        ([None], None),
    ],
)
def test_typed_columns_keep_their_type(cells: list[Any], expected: str) -> None:
    assert column_type(*cells) == expected


def test_files_of_a_catalog_agree_where_their_cells_do() -> None:
    """CSV without types, and JSON with them."""
    assert column_type(Cell("9"), 9.5) == "number"
    assert column_type(Cell("9"), "nine") == "text"


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            [9.5, "cheap"],
            "m:2: column column: 'cheap' is of type text, but '9.5' in m:1 is of type number",
        ),
        ([True, 1], "m:2: .* '1' is of type number, but 'True' in m:1 is of type boolean"),
        (
            [Cell("9"), 9.5, Cell("x" * 50)],
            r"m:3: .* 'x{40}\.\.\.' is of type text, but .* in m:2 is of type number",
        ),
    ],
)
def test_conflicting_types_are_refused_with_their_places(cells: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        column_type(*cells)


def test_columns_of_the_workspace_keep_their_type() -> None:
    stored = [pa.field("price", TYPES["number"]), pa.field("shop", TYPES["text"])]
    types = ColumnTypes(stored)
    types.add({"price": Cell("9"), "shop": Cell("9")}, "m.csv:2")
    assert types.fields() == stored
    expected = "m.csv:3: .* 'n/a' is of type text, but .* of type number in the workspace"
    with pytest.raises(ValueError, match=expected):
        types.add({"price": Cell("n/a")}, "m.csv:3")


@pytest.mark.parametrize("name", ["vector", "_rowid", "price.usd", " "])
def test_names_that_cannot_be_columns_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="m:1: the column .* cannot be stored; .* Rename it"):
        ColumnTypes().add({name: 1}, "m:1")


def test_cells_become_values_of_their_type() -> None:
    """Also after a way through JSON, where cells of CSV are plain text."""
    types = ColumnTypes()
    row = {
        "price": Cell("9.50"), "sold": Cell("TRUE"), "since": Cell("2026-11-29"),
        "tags": Cell('["a"]'), "shop": "north", "more": {"a": 1},
    }  # fmt: skip
    types.add(row, "m:1")
    plain = {name: str(cell) if isinstance(cell, Cell) else cell for name, cell in row.items()}
    arrays = types.arrays([plain, {}])
    assert {name: array[0].as_py() for name, array in arrays.items()} == {
        "price": 9.5, "sold": True, "since": datetime(2026, 11, 29, tzinfo=UTC),
        "tags": ["a"], "shop": "north", "more": '{"a": 1}',
    }  # fmt: skip
    assert all(array[1].as_py() is None for array in arrays.values())


def test_times_without_a_zone_are_utc() -> None:
    types = ColumnTypes()
    types.add({"at": "2026-11-29 12:00"}, "m:1")
    types.add({"at": "2026-11-29T12:00:00+08:00"}, "m:2")
    at = types.arrays([{"at": "2026-11-29 12:00"}, {"at": "2026-11-29T12:00:00+08:00"}])["at"]
    assert [time.hour for time in at.to_pylist()] == [12, 4]


def test_empty_cells_fit_all_types() -> None:
    assert types_of("") == types_of(None) == types_of(math.nan) == set(TYPES)
    assert column_type("", 1, None, Cell(""), math.nan) == "number"
