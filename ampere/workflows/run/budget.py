"""A time budget: an alarm that ends the running stage in order."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ampere.interrupts import is_importing

REPEAT_S = 30.0  # a library may have swallowed the exception
IMPORT_S = 0.2  # until an alarm that came during an import is raised

SetTimer = Callable[[int, float, float], Any]


class TimeIsUp(BaseException):
    """The time budget is over. No `Exception`, so that no stage takes it for a failed row."""


class TimeBudget:
    """Raises `TimeIsUp` in the main thread when the time is over, but only in watched blocks.

    As a context it sets the alarm, and puts back the alarm that was set before.

    Args:
        minutes: None: no limit.
        set_timer: as `signal.setitimer`.
    """

    def __init__(self, minutes: float | None, set_timer: SetTimer = signal.setitimer) -> None:
        self.minutes = minutes
        self.is_over = False
        self._set_timer, self._is_watching = set_timer, False
        self._before: Any = (0.0, 0.0)
        self._handler: Any = None

    def __enter__(self) -> "TimeBudget":
        if self.minutes is not None:
            self._handler = signal.signal(signal.SIGALRM, self._on_alarm)
            self._before = self._set_timer(signal.ITIMER_REAL, self.minutes * 60, REPEAT_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self.minutes is not None:
            self._set_timer(signal.ITIMER_REAL, 0.0, 0.0)
            signal.signal(signal.SIGALRM, self._handler)
            self._set_timer(signal.ITIMER_REAL, *(self._before or (0.0, 0.0)))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A block that ends with `TimeIsUp` when the time is over."""
        self._is_watching = True
        try:
            yield
        finally:
            self._is_watching = False

    def _on_alarm(self, _: int, frame: FrameType | None) -> None:
        self.is_over = True
        if not self._is_watching:
            return
        if is_importing(frame):  # a module that is half imported stays so
            self._set_timer(signal.ITIMER_REAL, IMPORT_S, REPEAT_S)
            return
        self._is_watching = False
        raise TimeIsUp
