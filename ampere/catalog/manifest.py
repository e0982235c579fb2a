"""A user's own catalogue: CSV, JSONL or Parquet files with a row a sample.

Columns: sample_id, domain (page, short or live), media, and if known product_id, text and split (train or test), whose
cells may also be empty. `media` is one image or video, or several frames in time order: a JSON list, or in CSV
names separated by `|`. Relative media are looked for beside the manifest. Other columns are kept in `extra`.
The line of a CSV row is the one it ends on, and that of a Parquet row its number from 1.
Where no split is given, a product's checksum puts one product in five into the test split.
"""

import csv
import json
import posixpath
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.uris import absolute

REQUIRED = ("sample_id", "domain", "media")
OPTIONAL = ("product_id", "text", "split")
NumberedRow = tuple[int, dict[str, Any] | str]  # line, and the row or what is wrong with it
LONGEST_FIELD = (
    2**24
)  # characters; the csv module's own limit cuts transcripts, none lets an open quote fill memory
PARQUET_ROWS = 1000  # held at a time
VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip


def read_manifest(path: str) -> Iterator[Located]:
    """Read a manifest row by row, each with its file and line; a row that is no sample comes as a `Problem`.

    Args:
        path: a file or a folder of them, here or on any store that fsspec reads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a known kind of file, not readable as such, or a column is missing.
    """
    uri = absolute(path)
    fs, inside = fsspec.core.url_to_fs(uri)
    if not fs.isdir(inside):
        if PurePosixPath(uri).suffix.lower() not in READERS:
            raise ValueError(f"the manifest {path} is neither .csv, .jsonl nor .parquet")
        return _read_file(uri)
    files = (entry["name"] for entry in fs.ls(inside, detail=True) if entry["type"] != "directory")
    names = sorted(
        PurePosixPath(file).name for file in files if PurePosixPath(file).suffix.lower() in READERS
    )
    names = [
        name for name in names if not name.startswith(".")
    ]  # macOS leaves ._m.csv beside m.csv
    if not names:
        raise ValueError(f"the folder {path} holds no manifest (.csv, .jsonl or .parquet)")
    return chain.from_iterable(_read_file(f"{uri}/{name}") for name in names)


def _read_file(uri: str) -> Iterator[Located]:
    folder, name = uri.rsplit("/", 1)
    for line, row in _readable(READERS[PurePosixPath(uri).suffix.lower()](uri), uri):
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
    except UnicodeDecodeError as error:
        raise ValueError(f"the manifest {uri} is not UTF-8 ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"the header of the manifest {uri} is not CSV: {error}") from error


def _csv_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rt", encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(LONGEST_FIELD)
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
                fields = (
                    sum(v is not None for v in row.values())
                    + len(row.get(None) or ())
                    - (None in row)
                )
                yield (
                    reader.reader.line_num,
                    f"{fields} fields where the header has {len(reader.fieldnames or ())}",
                )
            else:
                yield reader.reader.line_num, row


def _jsonl_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (
                ValueError,
                RecursionError,
            ) as error:  # also numbers too long for Python, and a million brackets
                yield number, f"not a line of JSON: {error}"
                continue
            yield (
                number,
                row
                if isinstance(row, dict)
                else f"a {type(row).__name__} where an object was expected",
            )


def _parquet_rows(uri: str) -> Iterator[NumberedRow]:
    with fsspec.open(uri, "rb") as file:
        try:
            table = pq.ParquetFile(file)
            _check_columns(table.schema_arrow.names, uri)
            batches = table.iter_batches(PARQUET_ROWS)
            yield from enumerate(
                chain.from_iterable(batch.to_pylist() for batch in batches), start=1
            )
        except (
            pa.ArrowException,
            OSError,
            OverflowError,
        ) as error:  # pyarrow raises OSError for spoilt pages
            raise ValueError(
                f"the manifest {uri} is no Parquet file that can be read: {error}"
            ) from error


READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}


def _check_columns(columns: Iterable[str], uri: str) -> None:
    columns = list(columns)
    if twice := {name for name in columns if columns.count(name) > 1}:
        raise ValueError(f"the manifest {uri} has the column {', '.join(sorted(twice))} twice")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(
            f"the manifest {uri} lacks the column {', '.join(missing)}; it needs {', '.join(REQUIRED)}"
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
        media_kind=media_kind(media),
        media_uris=tuple(media),
        extra={k: v for k, v in row.items() if k not in (*REQUIRED, *OPTIONAL)},
    )
    _check_unicode(sample)
    return sample


def _check_unicode(sample: Sample) -> None:
    """Refuse half characters, which JSON can hold and tables cannot."""
    row = sample.to_row()
    for name in ("sample_id", "product_id", "text", "extra"):
        try:
            (row[name] or "").encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name} holds half a character ({error}): {row[name]!a:.80}"
            ) from error
    "".join(sample.media_uris).encode()


def _text(value: Any, name: str) -> str | None:
    """A cell as text, None if it is empty. Whole numbers are fine: many catalogues number their products.

    Raises:
        ValueError: anything else. 12.0 or NaN is an id that some program took for a number, and matches no other.
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
                f"sample {sample_id}: media begins as a JSON list and is none: {error}"
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
    """A media path or URI; relative paths are taken from `folder`."""
    return item if "://" in item or item.startswith("/") else posixpath.join(folder, item)


def media_kind(media: list[str]) -> MediaKind:
    if len(media) > 1:
        return MediaKind.FRAMES
    name = (
        urlsplit(media[0]).path if "://" in media[0] else media[0]
    )  # a signed URL has a query behind its name
    return MediaKind.VIDEO if name.lower().endswith(VIDEO_SUFFIXES) else MediaKind.IMAGE


def split_of(product_id: str | None) -> Split:
    """The split of a product where the catalogue names none; a sample of no known product is never trained on."""
    return (
        Split.TEST
        if product_id is None or zlib.crc32(product_id.encode()) % 5 == 0
        else Split.TRAIN
    )
