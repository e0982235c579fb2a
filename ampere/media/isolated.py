"""Calls in an isolated child process, which may hang, crash or run out of memory.

Library process pools either have no time limit for one call, or wait forever once a child dies
while it sends a result. With one child and one pipe, of which the caller holds one end only, the
child's death is always noticed.
"""

import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

from ampere.interrupts import children_without_interrupts, end_with_parent
from ampere.media.decoder import DecoderCrashed, MediaError, TimedOut, TooLarge

P = ParamSpec("P")
R = TypeVar("R")
# A child may also die for reasons other than the file, such as a machine short of memory.
ATTEMPTS = 2


class IsolatedProcess:
    """One child process, started at the first call and replaced when it dies or is killed.

    Args:
        time_limit_s: for one call, not counting the start of a child.
        memory_limit_gb: of address space, in addition to what the child starts with.
        memory_setting: name of this limit in messages.
    """

    def __init__(
        self,
        time_limit_s: float,
        memory_limit_gb: float,
        memory_setting: str = "decode.memory_limit_gb",
    ) -> None:
        self.time_limit_s = time_limit_s
        self.memory_limit_gb = memory_limit_gb
        self.memory_setting = memory_setting
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function(*args, **kwargs)` in the child; all must be picklable.

        Raises:
            TimedOut: the call exceeded the time limit.
            DecoderCrashed: the child died, and so did its replacement.
            TooLarge: the call exceeded the memory limit.
            MediaError: raised by the function; its other exceptions are converted to this one.
        """
        for _ in range(ATTEMPTS):
            try:
                pipe = self._pipe or self._start()
                pipe.send((function, args, kwargs))
                if not pipe.poll(self.time_limit_s):
                    self.stop()
                    raise TimedOut(f"not finished within {self.time_limit_s:g} s; stopped")
                result = pickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                status = self.stop()
            else:
                if isinstance(result, MediaError):
                    raise result
                return result
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise DecoderCrashed(f"the decoding process died {ATTEMPTS} times on this file ({cause})")

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs, children_without_interrupts():
            memory_limit = int(self.memory_limit_gb * 1e9)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", __name__),
                    *(str(theirs.fileno()), str(memory_limit), str(os.getpid())),
                    self.memory_setting,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Inside a Ray job this package is importable only through the worker's sys.path.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        weakref.finalize(self, _end, self._process)  # also when this process ends
        self._pipe = Connection(ours.detach())
        self._pipe.recv_bytes()  # wait until it is ready, so that startup does not count as work
        return self._pipe

    def stop(self) -> int:
        """Kill the child, if there is one, and return its exit status (negative: the signal)."""
        if self._pipe is None or self._process is None:
            return 0
        self._pipe.close()
        self._pipe = None
        return _end(self._process)

    def __enter__(self) -> "IsolatedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: "subprocess.Popen[bytes]") -> int:
    process.kill()  # no effect on a dead process
    return process.wait()


def _limit_memory(extra_bytes: int) -> None:
    """Limit this process to `extra_bytes` of address space more than it has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + extra_bytes, present + extra_bytes))


def _serve(pipe: Connection, memory_setting: str) -> None:
    """Signal that the child is ready; then run calls until the caller closes the pipe."""
    pipe.send_bytes(b"")
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            # The highest protocol copies a large array once, the default one twice.
            answer = pickle.dumps(function(*args, **kwargs), pickle.HIGHEST_PROTOCOL)
        except MediaError as error:
            answer = pickle.dumps(error)
        except MemoryError:
            answer = pickle.dumps(TooLarge(f"out of memory; the limit is {memory_setting}"))
        except Exception as error:  # whatever a malformed file raises fails that file alone
            answer = pickle.dumps(MediaError(f"{type(error).__name__}: {error}"))
        pipe.send_bytes(answer)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    # Load the decoders before the memory limit applies.
    import ampere.media.audio
    import ampere.media.query  # noqa: F401

    _limit_memory(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])), sys.argv[4])
