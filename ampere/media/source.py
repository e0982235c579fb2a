"""Where media come from: bytes at hand, a path, or a URI that fsspec reads."""

import fsspec

from ampere.media.decoder import MissingMedia, TooLarge

MAX_BYTES = 1_000_000_000


def load(source: str | bytes, max_bytes: int) -> bytes:
    """The bytes at a local path or URI; bytes are given back.

    Raises:
        MissingMedia: the file is missing, not readable, or empty.
        TooLarge: it is longer than `max_bytes`.
    """
    if isinstance(source, bytes):
        return source
    try:
        with fsspec.open(source, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise MissingMedia(f"media file not found: {source}") from error
    except (
        OSError,
        ValueError,
        ImportError,
    ) as error:  # a scheme that fsspec does not know, or lacks a package for
        raise MissingMedia(f"media file cannot be read: {source}: {error}") from error
    if not data:
        raise MissingMedia(f"media file is empty: {source}")
    if len(data) > max_bytes:
        raise TooLarge(
            f"media file is above the limit of {max_bytes / 1e6:g} MB (decode.max_file_mb): {source}"
        )
    return data
