"""CSV records of a file in which a quote may be open: the rows behind it are not swallowed.

A quote that opens a cell and is not closed makes all that follows one cell, up to the next quote.
If lines of such a cell are rows themselves, only the row that opens the quote is invalid.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterator

LooksLikeRow = Callable[[list[str]], bool]


class Rewindable:
    """Lines that can be read again from a remembered place."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.record: list[str] = []

    def __iter__(self) -> "Rewindable":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.record.append(line)
        return line

    def rewind(self, lines: list[str]) -> None:
        """Read these lines next."""
        self._again.extendleft(reversed(lines))


def read_records(
    lines: Iterator[str], start: int, delimiter: str, looks_like_row: LooksLikeRow
) -> Iterator[tuple[int, int, list[str] | str]]:
    """Split lines into records.

    Args:
        lines: of the file, after the header.
        start: number of lines before them.
        delimiter: between two cells.
        looks_like_row: whether the cells of one line are a row of the file.

    Yields:
        Numbers of the record's first and last line, and its cells or an error message.
    """
    text = Rewindable(lines)
    reader = csv.reader(text, strict=True, delimiter=delimiter)
    while True:
        text.record = []
        try:
            cells: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = f"invalid CSV: {error}"
        first, last = start + 1, start + len(text.record)
        hidden = text.record[1:]
        if any(_is_row(line, delimiter, looks_like_row) for line in hidden):
            text.rewind(hidden)
            reader = csv.reader(text, strict=True, delimiter=delimiter)
            cells = (
                f"a quote that opens on this line is not closed before line {last}; the rows "
                "behind it are read by themselves. Close the quote, or double it inside a cell"
            )
            last = first
        start = last
        if cells:  # not a blank line
            yield first, last, cells


def _is_row(line: str, delimiter: str, looks_like_row: LooksLikeRow) -> bool:
    """Whether a line within a record is a row itself.

    A first cell with a quote may be the end of a cell of several lines.
    """
    try:
        cells = next(csv.reader([line], strict=True, delimiter=delimiter), [])
    except csv.Error:
        return False
    return bool(cells) and '"' not in cells[0] and looks_like_row(cells)
