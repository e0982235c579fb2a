"""A time budget: an alarm that ends the running stage in order.

An exception out of nowhere is safe in few places: inside a library's lock or callback it is lost,
or leaves the lock held. So it is raised in ampere's own code, or where the main thread waits, as it
does most of the time; elsewhere the alarm comes again in a moment.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ampere.interrupts import is_importing

REPEAT_S = 30.0  # a library may have swallowed the exception
UNSAFE_S = 0.1  # until the alarm comes again where it is not safe to raise
PACKAGE = str(Path(__file__).parents[2])
RAY_WORKER = "/ray/_private/worker.py"

SetTimer = Callable[[int, float, float], Any]


class TimeIsUp(KeyboardInterrupt):
    """The time budget is over. No `Exception`, so that no stage takes it for a failed row.

    `ray.get` loses all others in a signal handler, and raises a `KeyboardInterrupt` of its own.
    """


class TimeBudget:
    """Raises `TimeIsUp` in the main thread when the time is over, but only in watched blocks.

    As a context it sets the alarm, and puts back the alarm that was set before.

    Args:
        minutes: None: no limit.
        set_timer: as `signal.setitimer`.

    Attributes:
        is_over: the time is over.
        has_raised: `TimeIsUp` was raised. Another exception of the same block may follow from it.
    """

    def __init__(self, minutes: float | None, set_timer: SetTimer = signal.setitimer) -> None:
        self.minutes = minutes
        self.is_over = self.has_raised = False
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
        if not is_safe(frame):
            self._set_timer(signal.ITIMER_REAL, UNSAFE_S, REPEAT_S)
            return
        self.has_raised = True
        raise TimeIsUp


def is_safe(frame: FrameType | None) -> bool:
    """Whether an exception in a frame ends the block around it, and leaves nothing half done."""
    if frame is None or is_importing(frame):
        return False
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    is_wait = file == threading.__file__ and function in ("wait", "_wait_for_tstate_lock")
    is_ray_wait = file.endswith(RAY_WORKER) and function in ("get_objects", "wait")
    return (file.startswith(PACKAGE) or is_wait or is_ray_wait) and not _is_starting_ray(frame)


def _is_starting_ray(frame: FrameType | None) -> bool:
    """Whether Ray is being started or shut down; a half-started one could not be shut down."""
    while frame is not None:
        is_ray = frame.f_code.co_filename.endswith(RAY_WORKER)
        if is_ray and frame.f_code.co_name in ("init", "shutdown"):
            return True
        frame = frame.f_back
    return False
