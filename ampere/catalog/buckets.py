"""Rows partitioned on disk by a key, to join any number of them one bucket at a time."""

import csv
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO


class Buckets:
    """Rows of strings in `count` files; all rows of a key are in one bucket, in insertion order.

    Sorting on disk by DuckDB was tried first: it needed more memory at two million rows, and did
    not finish with a small memory limit.
    """

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self._paths = [folder / f"{i}.csv" for i in range(count)]
        self._stack = ExitStack()
        self._writers = [csv.writer(self._open(path)) for path in self._paths]

    def _open(self, path: Path) -> TextIO:
        return self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))

    def add(self, key: str, *values: str | int) -> None:
        """Append a row to the bucket of its key."""
        self._writers[zlib.crc32(key.encode()) % len(self._writers)].writerow((key, *values))

    def close(self) -> None:
        """Finish writing; the rows can be read from now on."""
        self._stack.close()

    def read(self, bucket: int) -> Iterator[list[str]]:
        """The rows of a bucket, key first; numbers are returned as strings."""
        csv.field_size_limit(sys.maxsize)  # the default limit is shorter than a long transcript
        with self._paths[bucket].open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file)
