"""Load media from bytes, a local path, or any URI that fsspec reads."""

from ampere.media.decoder import MissingMedia, TooLarge
from ampere.uris import absolute, open_file

MAX_BYTES = 1_000_000_000


def load(source: str | bytes, max_bytes: int) -> bytes:
    """The bytes at a local path or URI; bytes are returned unchanged.

    Raises:
        MissingMedia: the file is missing, unreadable or empty.
        TooLarge: the file is longer than `max_bytes`.
    """
    if isinstance(source, bytes):
        return source
    try:
        with open_file(absolute(source), "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise MissingMedia(f"media file not found: {source}") from error
    # ValueError and ImportError: fsspec does not know the scheme, or its package is not installed.
    except (OSError, ValueError, ImportError) as error:
        raise MissingMedia(f"cannot read media file: {source}: {error}") from error
    if not data:
        raise MissingMedia(f"media file is empty: {source}")
    if len(data) > max_bytes:
        limit = f"{max_bytes / 1e6:g} MB (decode.max_file_mb)"
        raise TooLarge(f"media file exceeds the limit of {limit}: {source}")
    return data
