"""Changes of rows that are committed in groups.

Concurrent calls share commits, since a commit of many rows takes hardly longer than that of one.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Row = TypeVar("Row")

GROUP_S = 0.1  # a commit waits this long for further changes
MAX_GROUP = 1000  # changes of one commit
COMMITS_PER_MAINTENANCE = 40  # a commit takes 0.05 s then, and after 150 commits 0.3 to 0.6 s


@dataclass
class _Change(Generic[Row]):
    """New rows by id, None for deleted ones, and who waits for them."""

    rows: Mapping[str, Row | None]
    done: Future[None] = field(default_factory=Future)


class GroupCommitter(Generic[Row]):
    """Collects changes for a short time and commits them together, in a thread.

    Args:
        commit: writes changes, sample id -> row or None for a deletion, so that they are durable
            when it returns.
        group_s: seconds that a commit waits for further changes.
        maintain: called after every `COMMITS_PER_MAINTENANCE` commits, in a thread of its own, so
            that no change waits for it; to merge small files and to take new rows into indexes.
    """

    def __init__(
        self,
        commit: Callable[[dict[str, Row | None]], None],
        group_s: float = GROUP_S,
        maintain: Callable[[], None] | None = None,
    ) -> None:
        self._commit, self._group_s, self._maintain = commit, group_s, maintain
        self._commits, self._maintenance = 0, threading.Thread()
        self._changes: queue.Queue[_Change[Row] | None] = queue.Queue()
        self._is_closed, self._closing = False, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, rows: Mapping[str, Row | None]) -> Future[None]:
        """Commit changes; the future is done once they are durable.

        A change whose future is canceled before its commit begins is dropped.

        Args:
            rows: sample id -> its new row, None: deleted.

        Raises:
            RuntimeError: the committer is closed.
        """
        change = _Change(rows)
        with self._closing:  # a change behind the end would wait for ever
            if self._is_closed:
                raise RuntimeError("the writer is closed")
            if rows:
                self._changes.put(change)
            else:
                change.done.set_result(None)
        return change.done

    def close(self) -> None:
        """Commit what is waiting, end the maintenance, and stop."""
        with self._closing:
            self._is_closed = True
            self._changes.put(None)
        self._thread.join()
        if self._maintenance.is_alive():
            self._maintenance.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            # From here on, whoever waits for a change cannot cancel it.
            group = [change for change in group if change.done.set_running_or_notify_cancel()]
            if not group:
                continue
            rows: dict[str, Row | None] = {}
            for change in group:  # the later one of two changes of a row wins
                rows |= change.rows
            try:
                self._commit(rows)
            except Exception as error:  # raised again where the changes were asked for
                for change in group:
                    change.done.set_exception(error)
                continue
            for change in group:
                change.done.set_result(None)
            self._start_maintenance()

    def _start_maintenance(self) -> None:
        """Start what is due, unless the last one still runs."""
        self._commits += 1
        if (
            self._maintain is None
            or self._commits < COMMITS_PER_MAINTENANCE
            or self._maintenance.is_alive()
        ):
            return
        self._commits = 0
        self._maintenance = threading.Thread(target=self._maintain, name="maintain", daemon=True)
        self._maintenance.start()

    def _next_group(self) -> tuple[list[_Change[Row]], bool]:
        """Changes that arrive within a short time, and whether the committer stays open."""
        first = self._changes.get()
        if first is None:
            return [], False
        group, end = [first], time.monotonic() + self._group_s
        while len(group) < MAX_GROUP:
            try:
                change = self._changes.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if change is None:
                return group, False
            group.append(change)
        return group, True
