"""Paths and URIs as the tables keep them: absolute."""

from pathlib import Path


def absolute(uri: str | Path) -> str:
    """A cloud URI as it is, a local path made absolute, without a slash at the end."""
    uri = str(uri)
    return uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().resolve())
