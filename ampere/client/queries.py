"""What is sent: queries and samples, and how they are encoded.

A request with a file is multipart/form-data, any other is JSON. Lines of a batch are JSON, in which
files are base64.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

Domain = Literal["page", "short", "live"]
Mode = Literal["vector", "lexical", "hybrid"]
File = str | os.PathLike[str] | bytes  # a path, or the file's content
Fields = dict[str, Any]  # JSON-like values
Parts = list[tuple[str, tuple[str, bytes, str]]]  # of a form: name, and file name, content, type


class Query(TypedDict, total=False):
    """A query; None is the same as leaving a field out.

    Fields:
        file: a picture or video, by path or content, or a list of pictures in the order of time.
        media_uri: URI of a file in a store that the endpoint allows.
        text: words.
        transcript: raw speech of the clip.
        sample_id: a stored sample.
        vector: of the model.
        weights: weight of each part: file, words, sample, vector.
        domain: where the query comes from.
        model: name of a served model.
    """

    file: File | Sequence[File] | None
    media_uri: str | None
    text: str | None
    transcript: str | None
    sample_id: str | None
    vector: Iterable[float]
    weights: Mapping[str, float]
    domain: Domain | None
    model: str | None


class Search(Query, total=False):
    """A query, what may be found, and how the hits are ranked and returned.

    Fields:
        domains: domains to search.
        k: hits per domain, or groups.
        offset: best hits per domain, or groups, that are skipped.
        filter: an SQL condition on the columns.
        group_by: column whose values are groups.
        group_size: hits per group.
        min_similarity: least cosine similarity of a hit of vector search.
        mode: ranking by vectors, by words, or by both.
        fusion_weights: weight of the vector and of the lexical ranking.
        explain: add to each hit why it was found.
        facets: columns whose values are counted.
    """

    domains: Sequence[Domain]
    k: int
    offset: int
    filter: str
    group_by: str
    group_size: int
    min_similarity: float | None
    mode: Mode | None
    fusion_weights: tuple[float, float]
    explain: bool
    facets: Sequence[str]


class NewSample(TypedDict, total=False):
    """A sample to insert, or to replace; one of file, media_uri and vector is needed.

    Fields:
        file: as of `Query`.
        columns: values of the catalog's further columns.
    """

    sample_id: Required[str]
    domain: Required[Domain]
    product_id: str | None
    text: str | None
    file: File | Sequence[File] | None
    media_uri: str | None
    vector: Iterable[float]
    columns: Mapping[str, Any]


def split_files(given: Mapping[str, Any], kind: Any) -> tuple[Fields, tuple[File, ...]]:
    """The fields of a query or sample without those that are None, and its files.

    Args:
        given: the fields.
        kind: Query, Search or NewSample, which has all names.

    Raises:
        TypeError: a field is unknown.
        ValueError: a list of files is empty.
    """
    if unknown := sorted(set(given) - set(kind.__annotations__)):
        raise TypeError(
            f"unknown: {', '.join(unknown)}; expected some of {', '.join(kind.__annotations__)}"
        )
    fields = {name: value for name, value in given.items() if value is not None}
    files = as_files(fields.pop("file", None))
    if "vector" in fields:
        fields["vector"] = [float(value) for value in fields["vector"]]  # such as NumPy's
    return fields, files


def as_files(file: File | Sequence[File] | None) -> tuple[File, ...]:
    """The files of a `file` argument.

    Raises:
        TypeError: it is an open file.
        ValueError: it is an empty list, or empty bytes.
    """
    if file is None:
        return ()
    if hasattr(file, "read"):  # it would be split into lines
        raise TypeError("file is an open file; expected a path, or its bytes: file.read()")
    files = (file,) if isinstance(file, (str, os.PathLike, bytes)) else tuple(file)
    if not files or b"" in files:
        raise ValueError(
            f"file is {file!r}; expected a path, the bytes of a file, or a list of them"
        )
    return files


def content_of(file: File) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def to_json(fields: Mapping[str, Any]) -> bytes:
    """JSON text of one line.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()


def to_json_with_files(given: Mapping[str, Any], kind: Any) -> bytes:
    """JSON text of a query or sample, with its files as base64; see `split_files`.

    Raises:
        OSError: a file cannot be read.
        TypeError: a field is unknown.
        ValueError: a number is not finite, or a list of files is empty.
    """
    fields, files = split_files(given, kind)
    contents = [base64.b64encode(content_of(file)).decode() for file in files]
    if len(contents) == 1:
        fields["media"] = contents[0]
    elif contents:
        fields["frames"] = contents
    return to_json(fields)


def to_form(fields: Mapping[str, Any], files: Sequence[File]) -> tuple[Fields, Parts]:
    """The fields and files of a form: lists repeat their field, objects are JSON.

    File names are not sent: the content decides what a file is.

    Raises:
        OSError: a file cannot be read.
        ValueError: a number is not finite.
    """
    form = {
        name: to_json(value).decode() if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }
    parts: Parts = [
        ("file", ("file", content_of(file), "application/octet-stream")) for file in files
    ]
    return form, parts
