"""Reader for manifests: a user's own catalog as CSV, JSONL or Parquet files, one sample a row.

Required columns are sample_id, domain (page, short or live) and media. Optional columns, whose
cells may be empty, are product_id, text and split (train or test). `media` is one image or video,
or several frames in time order: a JSON list, or in CSV names separated by `|`. Relative media paths
are resolved against the manifest's folder. Other columns with a name are stored in `extra`.

The line number of a CSV row is the line it ends on; that of a Parquet row is its number from 1.
Without a split, a product's checksum puts one product in five into the test split.
"""

import csv
import json
import posixpath
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ampere.catalog import parquet_cells
from ampere.catalog.csv_records import read_records
from ampere.catalog.extra_columns import Cell
from ampere.catalog.lines import Lines
from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.uris import absolute, filesystem, folder_of, is_uri, open_file, path_of

REQUIRED = ("sample_id", "domain", "media")
OPTIONAL = ("product_id", "text", "split")
NumberedRow = tuple[int, dict[str, Any] | str]  # line number, and the row or an error message
# Characters. The csv module's default limit rejects transcripts; without a limit, an open quote
# would fill memory.
MAX_FIELD_LENGTH = 2**24
PARQUET_ROWS = 1000  # rows in memory at a time


def read_manifest(path: str) -> Iterator[Located]:
    """Read a manifest row by row, each with its file and line; invalid rows are `Problem`s.

    Args:
        path: a file or a folder of them, on disk or on any store that fsspec reads.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is of another format, is unreadable, or a column is missing.
    """
    uri = absolute(path)
    fs, inside = filesystem(uri)
    if not fs.isdir(inside):
        if path_of(uri).suffix.lower() not in READERS:
            raise ValueError(
                f"unsupported manifest {path}; expected .csv, .jsonl or .parquet, or a folder"
            )
        return _read_file(uri)
    files = (entry["name"] for entry in fs.ls(inside, detail=True) if entry["type"] != "directory")
    names = sorted(
        PurePosixPath(file).name for file in files if PurePosixPath(file).suffix.lower() in READERS
    )
    # macOS leaves ._m.csv beside m.csv.
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise ValueError(f"no manifest (.csv, .jsonl or .parquet) in the folder {path}")
    return chain.from_iterable(_read_file(f"{uri}/{name}") for name in names)


def _read_file(uri: str) -> Iterator[Located]:
    folder, name = folder_of(uri), path_of(uri).name
    for line, row in _readable(READERS[path_of(uri).suffix.lower()](uri), uri):
        where = f"{name}:{line}"
        if isinstance(row, str):
            yield where, Problem("ParseError", row)
            continue
        try:
            yield where, _sample(row, folder)
        except ValueError as error:
            yield where, Problem("InvalidRow", str(error))


def _readable(rows: Iterator[NumberedRow], uri: str) -> Iterator[NumberedRow]:
    try:
        yield from rows
    except FileNotFoundError as error:
        raise FileNotFoundError(f"manifest not found: {uri}") from error
    except csv.Error as error:
        raise ValueError(f"the header of the manifest {uri} is not valid CSV: {error}") from error


def _open_text(uri: str) -> IO[str]:
    """A text file whose damaged bytes do not stop the reader; see `ampere.catalog.lines`."""
    return open_file(uri, "rt", encoding="utf-8", errors="surrogateescape", newline="")


def _csv_rows(uri: str) -> Iterator[NumberedRow]:
    with _open_text(uri) as file:
        csv.field_size_limit(MAX_FIELD_LENGTH)
        lines = Lines(file)
        text = iter(lines)
        first, skipped = next(text, ""), 0
        delimiter = _declared_delimiter(first)
        if delimiter:
            first, skipped = next(text, ""), 1
        delimiter = delimiter or _delimiter_of(first)
        header = csv.reader(chain([first], text), strict=True, delimiter=delimiter)
        columns = _column_names(next(header, []))
        start = header.line_num + skipped
        if error := lines.error_between(1, start):
            raise ValueError(f"the header of the manifest {uri} is invalid: {error}")
        _check_columns(columns, uri)
        looks_like_row = partial(_looks_like_row, columns=columns)
        for opened, closed, cells in read_records(text, start, delimiter, looks_like_row):
            error = lines.error_between(opened, closed)
            if isinstance(cells, str):
                yield opened, cells
            else:
                yield closed, error or _row(cells, columns)


def _declared_delimiter(line: str) -> str | None:
    """The delimiter in a first line such as `sep=;`, which Excel writes; None without one."""
    match = re.fullmatch(r"sep=(.)\s*", line, re.IGNORECASE)
    return match[1] if match else None


def _delimiter_of(header: str) -> str:
    """The delimiter with which a header has all required columns; a comma if none does."""
    for delimiter in ",\t;":
        names = _column_names(header.strip().split(delimiter))
        if set(REQUIRED) <= {name.strip('"').lower() for name in names}:
            return delimiter
    return ","


def _column_names(names: Iterable[str]) -> list[str]:
    """A header's names without trailing empty ones; known names in lower case, without blanks."""
    columns = list(names)
    while columns and not columns[-1].strip():
        columns.pop()
    return [
        known if (known := name.strip().lower()) in (*REQUIRED, *OPTIONAL) else name
        for name in columns
    ]


def _row(cells: list[str], columns: list[str]) -> dict[str, Any] | str:
    """Cells by column, or a message if there is another number of cells.

    Surplus cells that are empty belong to columns without a name.
    """
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        return f"{len(cells)} fields; expected {len(columns)} as in the header"
    return {
        name: cell if name in (*REQUIRED, *OPTIONAL) else Cell(cell)
        for name, cell in zip(columns, cells, strict=False)
    }


def _looks_like_row(cells: list[str], columns: list[str]) -> bool:
    """Whether the cells of a line are a row with the required values and a known domain."""
    row = _row(cells, columns)
    return (
        isinstance(row, dict)
        and all(row[name].strip() for name in REQUIRED)
        and row["domain"].strip() in list(Domain)
    )


def _jsonl_rows(uri: str) -> Iterator[NumberedRow]:
    with _open_text(uri) as file:
        lines = Lines(file)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if error := lines.error_between(number, number):
                yield number, error
                continue
            try:
                row = json.loads(line)
            # Also raised for numbers too long for Python, and for a million brackets.
            except (ValueError, RecursionError) as error:
                yield number, f"invalid JSON: {error}"
                continue
            is_object = isinstance(row, dict)
            yield number, row if is_object else f"JSON {type(row).__name__}; expected an object"


def _parquet_rows(uri: str) -> Iterator[NumberedRow]:
    with open_file(uri, "rb") as file:
        try:
            table = pq.ParquetFile(file)
            names = _parquet_columns(table.schema_arrow, uri)
            batches = table.iter_batches(PARQUET_ROWS, columns=list(names))
            rows = (row for batch in batches for row in _batch_rows(batch, names))
            yield from enumerate(rows, start=1)
        # pyarrow raises OSError for corrupted pages.
        except (pa.ArrowException, OSError, OverflowError) as error:
            raise ValueError(f"cannot read the manifest {uri} as Parquet: {error}") from error


def _parquet_columns(schema: pa.Schema, uri: str) -> dict[str, str]:
    """The columns to read, by their name in the file, with their name in a row.

    Further columns are read only if they are text, numbers or lists of text; others may be large.

    Raises:
        ValueError: a required column is missing, a name is duplicate, or a type is not supported.
    """
    columns = _column_names(schema.names)
    _check_columns(columns, uri)
    names = {}
    for field, name in zip(schema, columns, strict=False):
        is_known = name in (*REQUIRED, *OPTIONAL)
        if is_known and not parquet_cells.is_readable(field.type):
            raise ValueError(
                f"the column {name} of the manifest {uri} has the type {field.type}; expected "
                "text, a number, or for media a list of texts"
            )
        if is_known or (
            parquet_cells.is_readable(field.type) and not parquet_cells.is_binary(field.type)
        ):
            names[field.name] = name
    return names


def _batch_rows(batch: pa.RecordBatch, names: dict[str, str]) -> Iterator[dict[str, Any] | str]:
    """Rows of a Parquet file; a message for a row with a cell that cannot be read."""
    cells = [parquet_cells.read_cells(batch[name]) for name in names]
    columns = list(names.values())
    for values in zip(*cells, strict=True):
        row = dict(zip(columns, values, strict=True))
        bad = [f"{k}: {v}" for k, v in row.items() if isinstance(v, ValueError)]
        yield f"unreadable cell in the column {bad[0]}" if bad else row


READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}


def _check_columns(columns: Iterable[str], uri: str) -> None:
    columns = list(columns)
    if duplicates := {name for name in columns if columns.count(name) > 1}:
        raise ValueError(f"duplicate column in the manifest {uri}: {', '.join(sorted(duplicates))}")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(
            f"missing column in the manifest {uri}: {', '.join(missing)}; "
            f"required are {', '.join(REQUIRED)}. Its header has {columns}"
        )


def _sample(row: dict[str, Any], folder: str) -> Sample:
    fields = {
        name: _text(row.get(name), name)
        for name in ("sample_id", "product_id", "domain", "split", "text")
    }
    sample_id = fields["sample_id"]
    if not sample_id:
        raise ValueError("sample_id is empty")
    media = [absolute_media(item, folder) for item in _media_list(row.get("media"), sample_id)]
    if not media:
        raise ValueError(f"sample {sample_id}: media is empty")
    sample = Sample(
        sample_id=sample_id,
        product_id=fields["product_id"],
        domain=_member(Domain, fields["domain"], "domain", sample_id),
        split=_member(Split, fields["split"], "split", sample_id)
        if fields["split"]
        else split_of(fields["product_id"]),
        text=fields["text"],
        media_kind=MediaKind.FRAMES if len(media) > 1 else MediaKind.FILE,
        media_uris=tuple(media),
        extra={k: v for k, v in row.items() if k not in (*REQUIRED, *OPTIONAL) and k.strip()},
    )
    _check_unicode(sample)
    return sample


def _check_unicode(sample: Sample) -> None:
    """Reject unpaired surrogates, which JSON can contain but tables cannot store."""
    row = sample.to_row()
    for name in ("sample_id", "product_id", "text", "extra"):
        try:
            (row[name] or "").encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name} contains an unpaired surrogate, which is invalid Unicode "
                f"({error}): {row[name]!a:.80}"
            ) from error
    "".join(sample.media_uris).encode()


def _text(value: Any, name: str) -> str | None:
    """A cell as text, None if it is empty; integers are accepted, since many catalogs use them.

    Raises:
        ValueError: any other type. 12.0 or NaN is an id that some program parsed as a number, and
            would match no other row.
    """
    if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
        raise ValueError(f"{name} is {str(value)[:80]!r} ({type(value).__name__}); expected text")
    text = "" if value is None else str(value).strip()
    return text or None


def _media_list(value: Any, sample_id: str) -> list[str]:
    if isinstance(value, list):
        items = value
    elif (text := _text(value, "media") or "").startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"sample {sample_id}: media starts with '[' but is not a JSON list: {error}"
            ) from error
    else:
        items = text.split("|")
    names = (_text(item, "media") for item in items)
    return [name for name in names if name]


def _member(kind: Any, value: str | None, name: str, sample_id: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        expected = ", ".join(kind)
        raise ValueError(
            f"sample {sample_id}: {name} is {value!r}; expected one of {expected}"
        ) from error


def absolute_media(item: str, folder: str) -> str:
    """A media path or URI; relative paths are resolved against `folder`."""
    return item if is_uri(item) or item.startswith("/") else posixpath.join(folder, item)


def split_of(product_id: str | None) -> Split:
    """The default split of a product; samples without a product are never trained on."""
    return (
        Split.TEST
        if product_id is None or zlib.crc32(product_id.encode()) % 5 == 0
        else Split.TRAIN
    )
