"""A user's own catalogue: one CSV, JSONL or Parquet file with a row a sample.

Columns: sample_id, product_id (may be empty), domain (page, short or live), text (may be empty), media, and if known
split (train or test). `media` is one image or video, or several frames in time order: a JSON list, or in CSV
names separated by `|`. Relative media are looked for beside the manifest. Other columns are kept in `extra`.
Where no split is given, a product's checksum puts one product in five into the test split.
"""

import csv
import json
import posixpath
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow.parquet as pq

from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.workspace import absolute

REQUIRED = ("sample_id", "product_id", "domain", "text", "media")
OPTIONAL = ("split",)
NumberedRow = tuple[int, dict[str, Any] | str]  # line, and the row or what is wrong with it
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp")


def read_manifest(path: str) -> Iterator[Located]:
    """Read a manifest row by row, each with its file and line; a row that is no sample comes as a `Problem`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a known kind of file, or a column is missing.
    """
    uri = absolute(path)
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in readers:
        raise ValueError(f"the manifest {path} is neither .csv, .jsonl nor .parquet")
    folder, name = uri.rsplit("/", 1)
    for line, row in _named_encoding(readers[suffix](uri), path):
        where = f"{name}:{line}"
        if isinstance(row, str):
            yield where, Problem("ParseError", row)
            continue
        try:
            yield where, _sample(row, folder)
        except ValueError as error:
            yield where, Problem("InvalidRow", str(error))


def _named_encoding(rows: Iterator[NumberedRow], path: str) -> Iterator[NumberedRow]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise ValueError(f"the manifest {path} is not UTF-8 ({error}); save it as UTF-8") from error


def _csv_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _check_columns(reader.fieldnames or (), uri)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.reader.line_num, f"not a line of CSV: {error}"
                continue
            if None in row or None in row.values():
                fields = sum(v is not None for v in row.values()) + len(row.get(None) or ()) - (None in row)
                yield reader.reader.line_num, f"{fields} fields where the header has {len(reader.fieldnames or ())}"
            else:
                yield reader.reader.line_num, row


def _jsonl_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield number, f"not a line of JSON: {error}"
                continue
            yield number, row if isinstance(row, dict) else f"a {type(row).__name__} where an object was expected"


def _parquet_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rb") as file:
        table = pq.ParquetFile(file)
        _check_columns(table.schema_arrow.names, uri)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _check_columns(columns: Iterable[str], uri: str) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"the manifest {uri} lacks the column {', '.join(missing)}; it needs {', '.join(REQUIRED)}")


def _sample(row: dict[str, Any], folder: str) -> Sample:
    fields = {name: _text(row.get(name)) for name in ("sample_id", "product_id", "domain", "split", "text")}
    sample_id = fields["sample_id"]
    if not sample_id:
        raise ValueError("sample_id is empty")
    media = [absolute_media(item, folder) for item in _media_list(row.get("media"))]
    if not media:
        raise ValueError(f"sample {sample_id}: media is empty")
    return Sample(
        sample_id=sample_id,
        product_id=fields["product_id"],
        domain=_member(Domain, fields["domain"], "domain", sample_id),
        split=_member(Split, fields["split"], "split", sample_id)
        if fields["split"]
        else split_of(fields["product_id"]),
        text=fields["text"],
        media_kind=media_kind(media),
        media_uris=tuple(media),
        extra={k: v for k, v in row.items() if k not in (*REQUIRED, *OPTIONAL)},
    )


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _media_list(value: Any) -> list[str]:
    text = "" if isinstance(value, list) else _text(value) or ""
    items = value if isinstance(value, list) else json.loads(text) if text.startswith("[") else text.split("|")
    return [item for item in map(_text, items) if item]


def _member(kind: Any, value: str | None, name: str, sample_id: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        expected = ", ".join(kind)
        raise ValueError(f"sample {sample_id}: {name} is {value!r}; expected one of {expected}") from error


def absolute_media(item: str, folder: str) -> str:
    """A media path or URI; relative paths are taken from `folder`."""
    return item if "://" in item or item.startswith("/") else posixpath.join(folder, item)


def media_kind(media: list[str]) -> MediaKind:
    if len(media) > 1:
        return MediaKind.FRAMES
    name = urlsplit(media[0]).path if "://" in media[0] else media[0]  # a signed URL has a query behind its name
    return MediaKind.VIDEO if name.lower().endswith(VIDEO_SUFFIXES) else MediaKind.IMAGE


def split_of(product_id: str | None) -> Split:
    """The split of a product where the catalogue names none; a sample of no known product is never trained on."""
    return Split.TEST if product_id is None or zlib.crc32(product_id.encode()) % 5 == 0 else Split.TRAIN
