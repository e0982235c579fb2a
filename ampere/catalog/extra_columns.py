"""Types of a catalog's further columns: text, number, boolean, time, or list of texts.

A column has one type in the whole catalog. CSV has text alone, so there a column is a number, a
boolean, a time or a list if all of its cells can be read as one.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "list of texts": pa.list_(pa.string()),
    "text": pa.string(),
}
"""Type name -> column type. Of the types that all cells fit, the first is taken."""

RESERVED = {
    *("fingerprint", "media_kind", "media_uris", "media_uri", "timestamps_s", "extra", "place"),
    *("origin", "model", "vector", "frames_vector", "text_vector", "frames", "summary", "score"),
}
"""Names of ampere's own columns."""

NUMBER = re.compile(r"[+-]?(0|[1-9]\d*|(?=\.))(\.\d+)?([eE][+-]?\d+)?")  # not 007, which is an id
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
LARGEST_INTEGER = 2**53  # that a float64 counts up to; larger ones are ids, and stay text
SHOWN = 40  # characters of a cell in a message


class Cell(str):
    """A cell of a file without types, such as CSV."""


class Text(str):
    """A value that is text whatever it looks like, such as the name of a folder `2026-11-29`."""


@dataclass(frozen=True)
class _Column:
    """What is known of a column: the types that all cells so far fit, and the cell that said so."""

    types: frozenset[str]
    place: str
    value: Any


class ColumnTypes:
    """Finds the types of further columns, cell by cell.

    Args:
        stored: columns of the workspace, whose types stay.
    """

    def __init__(self, stored: Iterable[pa.Field] = ()) -> None:
        names = {kind: name for name, kind in TYPES.items()}
        self._columns = {
            field.name: _Column(frozenset([names[field.type]]), "the workspace", None)
            for field in stored
        }

    def add(self, extra: Mapping[str, Any], place: str) -> None:
        """Read the cells of one row.

        Args:
            extra: further columns by name.
            place: file and line of the row.

        Raises:
            ValueError: a cell has another type than the column, or a name is ampere's own.
        """
        for name, value in extra.items():
            if is_empty(value):
                continue
            column = self._columns.get(name)
            if column is None:
                check_name(name, place)
                self._columns[name] = _Column(types_of(value), place, value)
                continue
            both = types_of(value, column.types)
            if not both:
                raise ValueError(_conflict(name, value, place, column))
            if both != column.types:
                self._columns[name] = _Column(both, place, value)

    def fields(self) -> list[pa.Field]:
        """The columns with any value, in the order of their first cells."""
        return [pa.field(name, TYPES[kind]) for name, kind in self._kinds()]

    def arrays(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, pa.Array]:
        """Cells by column, with nulls for those that are missing.

        Args:
            rows: further columns by name; values as they were added, or as JSON returns them.
        """
        rows = list(rows)
        return {
            name: pa.array([read_cell(row.get(name), kind) for row in rows], TYPES[kind])
            for name, kind in self._kinds()
        }

    def _kinds(self) -> Iterator[tuple[str, str]]:
        for name, column in self._columns.items():
            yield name, next(kind for kind in TYPES if kind in column.types)


def check_name(name: str, place: str) -> None:
    """Check the name of a further column.

    Raises:
        ValueError: it is ampere's own, or cannot be a column.
    """
    if name in RESERVED or name.startswith("_") or "." in name or not name.strip():
        raise ValueError(
            f"{place}: the column {name!r} cannot be stored; names must not be blank, contain a "
            f"dot, begin with an underscore, or be one of {', '.join(sorted(RESERVED))}. Rename it"
        )


def is_empty(value: Any) -> bool:
    """Whether a cell is null, an empty text or NaN: it fits every type."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def types_of(value: Any, among: Iterable[str] = TYPES) -> frozenset[str]:
    """Those of some types that a cell fits; an empty cell fits all."""
    return frozenset(kind for kind in among if is_empty(value) or _fits(value, kind))


def read_cell(value: Any, kind: str) -> Any:
    """A cell as a value of a type that it fits; None for an empty cell."""
    if is_empty(value):
        return None
    if kind == "number":
        return float(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else value.lower() == "true"
    if kind == "time":
        return _time(value)
    if kind == "list of texts":
        return json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fits(value: Any, kind: str) -> bool:
    is_untyped = isinstance(value, Cell)
    if isinstance(value, str):
        return {
            "boolean": is_untyped and value.lower() in ("true", "false"),
            "number": is_untyped and _is_number(value),
            "time": not isinstance(value, Text) and _time(value) is not None,
            "list of texts": is_untyped and value.startswith("[") and _is_texts(_parsed(value)),
            "text": True,
        }[kind]
    is_number = not isinstance(value, bool) and not isinstance(value, list | dict)
    is_exact = is_number and (not isinstance(value, int) or abs(value) <= LARGEST_INTEGER)
    return {
        "boolean": isinstance(value, bool),
        "number": is_exact,
        "time": False,
        "list of texts": _is_texts(value),
        "text": not isinstance(value, bool) and not is_exact and not _is_texts(value),
    }[kind]


def _is_number(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return NUMBER.fullmatch(text) is not None and digits <= 15


def _time(text: str) -> datetime | None:
    """A date, or a date and time; of UTC unless it says otherwise. None for any other text."""
    if not TIME.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str | None) for item in value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _conflict(name: str, value: Any, place: str, column: _Column) -> str:
    """The message for a cell that does not fit the other cells of its column."""
    came = f"{place}: column {name}: {_cut(value)} is of type {_kinds(types_of(value))}"
    if column.value is None:
        return (
            f"{came}, but the column is of type {_kinds(column.types)} in {column.place}, and its "
            "type cannot change. Correct the cell, leave it empty, or rename the column"
        )
    return (
        f"{came}, but {_cut(column.value)} in {column.place} is of type {_kinds(column.types)}. "
        "Use one type per column, or leave the cell empty"
    )


def _kinds(types: frozenset[str]) -> str:
    return " or ".join(name for name in TYPES if name in types)


def _cut(value: Any) -> str:
    text = str(value)
    return repr(text[:SHOWN] + "..." * (len(text) > SHOWN))
