"""Files of samples over HTTP, whole or in parts."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastapi.responses import FileResponse, Response, StreamingResponse

from ampere.media.content_type import HEAD_BYTES, UNKNOWN, content_type
from ampere.uris import filesystem, is_uri
from serve.problems import Problem

CHUNK_BYTES = 2**20
PART = r"\s*(?:\d+-\d*|-\d+)\s*"  # of the header Range


async def file_response(uri: str, wanted: str | None) -> Response:
    """A file, or the part of it that the header Range asks for.

    Args:
        uri: local path or URI.
        wanted: the header; None: the whole file.

    Raises:
        Problem: 404, the file is gone; 416, the part is beyond its end.
    """
    try:
        head = await asyncio.to_thread(read_head, uri)
        kind = content_type(head)
        headers = {"cache-control": "private, max-age=60", "content-disposition": "inline"}
        if kind == UNKNOWN:  # a browser must not take it for a page
            headers["content-disposition"] = "attachment"
        if not is_uri(uri):
            byte_range(wanted, Path(uri).stat().st_size)
            return FileResponse(uri, media_type=kind, headers=headers)
        return await asyncio.to_thread(_remote, uri, wanted, kind, headers)
    except FileNotFoundError as error:
        raise Problem(404, "media.gone") from error
    except OSError as error:
        raise Problem(404, "media.unreadable", reason=type(error).__name__) from error


def _remote(uri: str, wanted: str | None, kind: str, headers: dict[str, str]) -> Response:
    """A file of another store, read in chunks."""
    fs, path = filesystem(uri)
    size = int(fs.size(path) or 0)
    begin, end = byte_range(wanted, size) or (0, size)
    headers |= {"accept-ranges": "bytes", "content-length": str(end - begin)}
    if wanted is not None and (begin, end) != (0, size):
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"

    def chunks() -> Iterator[bytes]:
        with fs.open(path, "rb") as file:
            file.seek(begin)
            left = end - begin
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk

    status = 206 if "content-range" in headers else 200
    return StreamingResponse(chunks(), status, headers, kind)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Begin and end of the part that a header Range asks for; None: the whole file, or several.

    Raises:
        Problem: 416, it is beyond the end, or malformed.

    >>> byte_range("bytes=2-5", 10), byte_range("bytes=-3", 10), byte_range("bytes=8-", 10)
    ((2, 6), (7, 10), (8, 10))
    """
    if header is None:
        return None
    if not re.fullmatch(rf"bytes={PART}(,{PART})*", header):
        raise Problem(416, "media.range", range=header[:100], size=size)
    if "," in header:  # several parts
        return None
    first, last = header.removeprefix("bytes=").strip().split("-")
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if begin >= end:
        raise Problem(416, "media.range", range=header, size=size)
    return begin, end


def read_head(uri: str) -> bytes:
    """The first bytes of a file.

    Raises:
        OSError: it is missing or cannot be read.
    """
    if not is_uri(uri):
        with Path(uri).open("rb") as file:
            return file.read(HEAD_BYTES)
    fs, path = filesystem(uri)
    return fs.cat_file(path, start=0, end=HEAD_BYTES)


def media_types(uris: Sequence[str]) -> Iterator[str | None]:
    """The MIME type of each file; None: it cannot be read."""
    for uri in uris:
        try:
            yield content_type(read_head(uri))
        except OSError:
            yield None
