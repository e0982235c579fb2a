"""Paths and URIs: one rule for what is local, and one way to open both.

A location is a URI if it has a scheme (`s3://bucket/shop`), else a local path. `file://` URIs are
local paths. In a local path every character is literal: `%20`, `#`, `?` and `::` too.
"""

import os
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

# A store may be away for half a minute. By default, Lance gives up after half a second, and s3fs
# after some seconds. With these limits they try for one to three minutes, with growing pauses. The
# first is Lance's, the others are those of the AWS libraries, which s3fs is built on.
for _name, _value in {
    "OBJECT_STORE_CLIENT_MAX_RETRIES": "30",
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "12",
}.items():
    os.environ.setdefault(_name, _value)
LOCAL_SCHEMES = ("file://localhost/", "file://", "local://")


def absolute(uri: str | Path) -> str:
    """Make a local path absolute; keep a URI. Neither ends with a slash.

    Raises:
        ValueError: the location is empty.

    >>> absolute("file:///data/a%20b/")
    '/data/a%20b'
    >>> absolute("s3://bucket/shop/")
    's3://bucket/shop'
    """
    text = str(uri)
    if not text.strip():
        raise ValueError("empty location; expected a path or a URI such as s3://BUCKET/FOLDER")
    for scheme in LOCAL_SCHEMES:
        if text.startswith(scheme):
            text = ("/" if scheme.endswith("/localhost/") else "") + text.removeprefix(scheme)
            break
    if is_uri(text):
        return text.rstrip("/")
    # Not `resolve`: a link keeps its own name and folder, not those of its target.
    return os.path.abspath(Path(text).expanduser())  # noqa: PTH100


def is_uri(location: str) -> bool:
    """Whether a location has a scheme, so that it is not a local path."""
    return "://" in location


def path_of(location: str) -> PurePosixPath:
    """The path in a location, for its name and suffix; without the query of a signed URL.

    >>> path_of("https://host/shop/m.csv?signature=a/b").name
    'm.csv'
    """
    return PurePosixPath(urlsplit(location).path if is_uri(location) else location)


def folder_of(location: str) -> str:
    """The folder that a file is in, as a location.

    >>> folder_of("https://host/shop/m.csv?signature=a/b")
    'https://host/shop'
    """
    if is_uri(location):
        parts = urlsplit(location)
        location = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return location.rsplit("/", 1)[0]


def filesystem(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a location, and the path in it.

    fsspec itself would read `::` in a local path as a chain of file systems.
    """
    if is_uri(location):
        return fsspec.core.url_to_fs(location)
    return LocalFileSystem(), location


def open_file(location: str, mode: str = "rb", **options: Any) -> IO[Any]:
    """Open a file at a local path or a URI.

    Args:
        location: absolute path or URI.
        mode: as of `open`.
        options: encoding, newline, and what the file system takes.
    """
    fs, path = filesystem(location)
    return fs.open(path, mode, **options)
