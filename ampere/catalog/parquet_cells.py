"""Cells of Parquet columns as values of a manifest row: text, numbers, or lists of text."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Cells = list[Any]  # Python values; a ValueError where a cell cannot be read


def is_readable(kind: pa.DataType) -> bool:
    """Whether cells of a type have one obvious meaning as text or number, or as a list of texts."""
    return is_scalar(kind) or (_is_list(kind) and is_scalar(kind.value_type))


def is_scalar(kind: pa.DataType) -> bool:
    """Whether cells of a type are texts or numbers, or have one obvious spelling as text."""
    kind = _plain_type(kind)
    return (
        _is_text(kind)
        or types.is_primitive(kind)  # numbers, booleans, dates and times
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether cells of a type may be anything, such as the bytes of a picture."""
    return _is_text(_plain_type(kind)) and not _is_string(_plain_type(kind))


def read_cells(array: pa.Array) -> Cells:
    """The values of a column; a `ValueError` in place of a cell that cannot be read.

    Args:
        array: of a type that `is_readable`. Bytes are UTF-8. Decimals are integers where they are
            whole numbers, and `Decimal` otherwise. Dates and times are ISO texts.
    """
    try:
        return _convert(array)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if len(array) == 1:
            return [ValueError(str(error))]
        return [read_cells(array.slice(i, 1))[0] for i in range(len(array))]


def _convert(array: pa.Array) -> Cells:
    kind = array.type
    for is_kind, plain in WRAPPERS:
        if is_kind(kind):
            return _convert(plain(array))
    if _is_list(kind):
        return [_convert(cell.values) if cell.is_valid else None for cell in array]
    if _is_text(kind):
        encoded = array.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8") for cell in encoded]
    if types.is_decimal(kind):
        return [
            int(cell) if cell is not None and cell == int(cell) else cell
            for cell in array.to_pylist()
        ]
    # As text: Python's own dates end with the year 9999.
    return (array.cast(pa.string()) if types.is_temporal(kind) else array).to_pylist()


def _uuid_texts(array: pa.Array) -> pa.Array:
    return pa.array([cell and str(cell) for cell in array.to_pylist()], pa.string())


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary, of runs, or of an extension type."""
    if kind == pa.uuid():
        return pa.string()
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    return _plain_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


# How arrays become arrays of their `_plain_type`.
WRAPPERS: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]] = [
    (lambda kind: kind == pa.uuid(), _uuid_texts),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), lambda array: array.storage),
    (types.is_dictionary, lambda array: array.dictionary_decode()),
    (types.is_run_end_encoded, pc.run_end_decode),
]


def _is_string(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    """Strings, and bytes that may hold UTF-8, as Impala and older Spark write strings."""
    return (
        _is_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )
