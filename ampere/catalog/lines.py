"""Lines of a UTF-8 text file of which some bytes may be damaged."""

import re
from collections.abc import Iterable, Iterator

UNDECODABLE = re.compile("[\udc80-\udcff]")  # how Python's `surrogateescape` shows such bytes
BYTE_ORDER_MARK = "\ufeff"


class Lines:
    """The lines of a text file, which remembers those with bytes that are not UTF-8.

    Args:
        file: opened as UTF-8 with errors="surrogateescape" and newline="".

    Attributes:
        errors: number of a damaged line, from 1 -> message with the byte and its offset.
    """

    def __init__(self, file: Iterable[str]) -> None:
        self.errors: dict[int, str] = {}
        self._file = file

    def __iter__(self) -> Iterator[str]:
        offset = 0  # bytes before the line
        for number, line in enumerate(self._file, start=1):
            if not line.isascii() and (match := UNDECODABLE.search(line)):
                at = offset + len(_encode(line[: match.start()]))
                self.errors[number] = (
                    f"byte 0x{_encode(match[0]).hex()} at offset {at} is not UTF-8; save the file "
                    "as UTF-8"
                )
            offset += len(_encode(line))
            yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line

    def error_between(self, first: int, last: int) -> str | None:
        """The first error in some lines, and forget those errors; None if there is none."""
        numbers = [number for number in self.errors if first <= number <= last]
        messages = [self.errors.pop(number) for number in numbers]
        return messages[0] if messages else None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
