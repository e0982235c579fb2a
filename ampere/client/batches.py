"""Batches: lines of JSON in requests of bounded size, and their answers in order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import httpx

from ampere.client.errors import ApiError, problem_error
from ampere.client.queries import to_json_with_files
from ampere.client.reading import reader, unexpected
from ampere.client.retries import may_pass

T = TypeVar("T")

MAX_LINES = 1000  # that the endpoint takes in a request
LINES = 100  # by default: answers come soon, and little is repeated after a lost connection
MAX_BYTES = 16 * 2**20  # a longer line is a request of its own
MAX_SAMPLES = 100  # that the endpoint stores in a request
NDJSON = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson"}


class Collector:
    """Collects lines until they fill a request.

    Args:
        most: lines in a request.

    Raises:
        ValueError: `most` is not 1 to `MAX_LINES`.
    """

    def __init__(self, most: int) -> None:
        if not 1 <= most <= MAX_LINES:
            raise ValueError(f"the lines per request are {most}; expected 1 to {MAX_LINES}")
        self._most = most
        self.lines: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> Iterator[list[bytes]]:
        """Add a line; yields the lines of each request that it fills."""
        if self.lines and self._size + len(line) > MAX_BYTES:
            yield self._full()
        self.lines.append(line)
        self._size += len(line)
        if len(self.lines) == self._most:
            yield self._full()

    def rest(self) -> Iterator[list[bytes]]:
        """Yield the lines that are left."""
        if self.lines:
            yield self._full()

    def _full(self) -> list[bytes]:
        lines, self.lines, self._size = self.lines, [], 0
        return lines


def in_chunks(given: Iterable[Mapping[str, Any]], kind: Any, most: int) -> Iterator[list[bytes]]:
    """Yield the lines of each request, reading no further than it needs.

    Args:
        given: queries or samples.
        kind: of them; see `split_files`.
        most: lines in a request.
    """
    collector = Collector(most)
    for one in given:
        yield from collector.add(to_json_with_files(one, kind))
    yield from collector.rest()


class Chunk(Generic[T]):
    """The lines of one request, and what is known of their answers.

    After a lost connection, only lines without an answer are sent again. So are lines that the
    endpoint refused for lack of capacity, after the others.

    Args:
        lines: JSON texts.
        kind: of an answer.
    """

    def __init__(self, lines: Sequence[bytes], kind: type[T]) -> None:
        self._lines = lines
        self._read = reader(kind)
        self._outcomes: dict[int, T | ApiError] = {}
        self._returned = 0  # outcomes that the caller has
        self._sent: list[int] = []  # numbers of the lines of the current request
        self._refused: dict[int, ApiError] = {}
        self._unread = b""
        self.has_progressed = False

    def begin(self) -> bytes:
        """The content of the next request."""
        self._sent = [at for at in range(len(self._lines)) if at not in self._outcomes]
        self._refused, self._unread, self.has_progressed = {}, b"", False
        return b"".join(self._lines[at] + b"\n" for at in self._sent)

    def take(self, data: bytes) -> list[T | ApiError]:
        """Read a part of the answer; returns the outcomes that are next in order.

        Lines end at a line feed alone. httpx would also split at characters such as U+2028, which
        JSON may hold.

        Raises:
            ApiError: the answer is no answer to these lines.
        """
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in filter(bytes.strip, lines):
            self._take_line(line)
        return self._next()

    def check_end(self) -> None:
        """Check, once the answer has ended, that each line has an outcome.

        Raises:
            ApiError: the endpoint refused lines for lack of capacity.
            httpx.RemoteProtocolError: the answer has too few lines.
        """
        without = [at for at in self._sent if at not in self._outcomes]
        if missing := len(without) - len(self._refused):
            raise httpx.RemoteProtocolError(f"the answer ended {missing} lines early")
        if self._refused:
            raise next(iter(self._refused.values()))

    def give_up(self, error: Exception) -> list[T | ApiError]:
        """The last outcomes, once no attempt is left: lines that were refused are errors.

        Raises:
            Exception: `error`, if there are other lines without an answer.
        """
        self._outcomes |= self._refused
        if any(at not in self._outcomes for at in self._sent):
            raise error
        return self._next()

    def _take_line(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            at, status = self._sent[value["index"]], int(value["status"])
            outcome = (
                self._read(value["answer"])
                if status < 300
                else problem_error(status, value["problem"])
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise unexpected(200, line, repr(error)) from error
        if isinstance(outcome, ApiError) and may_pass(outcome, is_idempotent=True):
            self._refused[at] = outcome
        else:
            self._outcomes[at] = outcome
            self.has_progressed = True

    def _next(self) -> list[T | ApiError]:
        outcomes = []
        while self._returned in self._outcomes:
            outcomes.append(self._outcomes[self._returned])
            self._returned += 1
        return outcomes
