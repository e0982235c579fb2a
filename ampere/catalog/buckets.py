"""Rows of any number, parted on disk by a key, so that what shares a key can be brought together bucket by bucket."""

import csv
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO


class Buckets:
    """Rows of strings in `count` files. All rows of one key are in one bucket, in the order they were added.

    Sorting on disk by DuckDB was tried first: it took more memory at two million rows, and a small share did not do.
    """

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self._paths = [folder / f"{i}.csv" for i in range(count)]
        self._stack = ExitStack()
        self._writers = [csv.writer(self._open(path)) for path in self._paths]

    def _open(self, path: Path) -> TextIO:
        return self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))

    def add(self, key: str, *values: str | int) -> None:
        self._writers[zlib.crc32(key.encode()) % len(self._writers)].writerow((key, *values))

    def close(self) -> None:
        """No more rows are added; they can be read now."""
        self._stack.close()

    def read(self, bucket: int) -> Iterator[list[str]]:
        """A bucket's rows, key first; numbers come back as strings."""
        csv.field_size_limit(
            sys.maxsize
        )  # the csv module's own limit is shorter than a long transcript
        with self._paths[bucket].open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file)
