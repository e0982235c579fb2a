"""Ends a command in order when a signal asks for it.

The first SIGINT, SIGTERM or SIGHUP becomes a KeyboardInterrupt, so that files, locks and processes
are closed. A second one ends the process at once: killed jobs resume, too.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESUME = "finished work is saved, run it again to resume"

_program = "ampere"
_at_exit: list[Callable[[], object]] = []
_active = False
_received: signal.Signals | None = None
_reported = False


def run_interruptible(program: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit status: 128 + the signal's number if one ended it.

    Args:
        program: its name in the sentence that is printed to stderr when a signal ends it.
        run: the command. A KeyboardInterrupt with a text replaces the second half of the sentence.
    """
    global _program, _active
    if _active or threading.current_thread() is not threading.main_thread():
        return run()  # only the main thread can handle signals
    _program, _active = program, True
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:  # what the parent process ignores, as `nohup`, stays ignored
            signal.signal(number, _on_signal)
    sys.unraisablehook = _end_if_swallowed
    outcome = RESUME
    try:
        status = run()
        if _received is None:
            return status
    except KeyboardInterrupt as error:
        outcome = str(error) or RESUME
    except (Exception, SystemExit):  # what is closed after a signal may fail
        if _received is None:
            raise
    finally:
        if _received is None:  # else the process is about to end, and a second signal may come
            _install(handlers)
            sys.unraisablehook = hook
        _active = False
    _report(outcome)
    if _received is None:
        return 128 + signal.SIGINT
    for function in (lambda: sys.stdout.flush(), *_at_exit):
        with contextlib.suppress(Exception):
            function()
    # Ray's own end takes many seconds, in which its threads print errors. The daemons of a local
    # Ray end with this process, and a cluster ends the jobs of drivers that are gone.
    os._exit(128 + _received)


def at_exit(function: Callable[[], object]) -> None:
    """Call a function when this process ends, also by a signal (not by a second one)."""
    atexit.register(function)
    _at_exit.append(function)


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Start child processes that ignore Ctrl-C, which a terminal sends to them as well.

    An interrupt that comes meanwhile is raised at the end: a child that is half started would print
    a traceback.
    """
    received: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    # To block the signal does not keep it from Python: another thread may take it.
    is_deferred = callable(handler) and threading.current_thread() is threading.main_thread()
    if is_deferred:
        signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_deferred:
            signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def end_with_parent(parent: int) -> None:
    """Make this child process end when its parent does, also when the parent is killed.

    Args:
        parent: its process id. A parent that has ended already sends no signal.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end."""
    return _received is not None


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep this process's handlers around a call of Ray, which installs its own.

    Meanwhile Ray answers SIGTERM and Ctrl-C with SystemExit, which becomes a KeyboardInterrupt.
    Later its handlers would print native stack traces, or swallow every further Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Ray installs no handlers either
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    except SystemExit as stopped:
        _note(stopped)
        raise KeyboardInterrupt from stopped
    finally:
        _install(before)


def _note(stopped: BaseException | None) -> None:
    """Record the signal that Ray's handlers answered with SystemExit."""
    global _received
    if _active and _received is None and isinstance(stopped, SystemExit):
        terminated = stopped.code == signal.SIGTERM
        _received = signal.SIGTERM if terminated else signal.SIGINT


def _install(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = signal.Signals(number)
        if not is_importing(frame):
            raise KeyboardInterrupt
    _end_now()


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported; some libraries swallow an interrupt of that, or abort."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end_if_swallowed(error: "sys.UnraisableHookArgs") -> None:
    """End after an interrupt in a destructor or a callback, which Python prints and forgets."""
    _note(error.exc_value)
    if _received is not None and issubclass(error.exc_type, (KeyboardInterrupt, SystemExit)):
        _end_now()
    sys.__unraisablehook__(error)


def _end_now() -> None:
    _report(RESUME)
    os._exit(128 + (_received or signal.SIGINT))


def _report(outcome: str) -> None:
    """Print the one sentence, unless it was printed already."""
    global _reported
    if _reported:
        return
    _reported = _received is not None
    name = (_received or signal.SIGINT).name
    # The terminal may be gone (SIGHUP), and a handler may interrupt another print.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        start = "\n" if sys.stderr.isatty() else ""  # after the ^C that a terminal shows
        print(f"{start}{_program}: interrupted by {name}; {outcome}", file=sys.stderr, flush=True)
