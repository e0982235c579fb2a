"""Absolute paths and URIs, as stored in the tables."""

from pathlib import Path


def absolute(uri: str | Path) -> str:
    """Make a local path absolute; keep a URI. Neither ends with a slash."""
    uri = str(uri)
    return uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().resolve())
