"""Work on untrusted files in a child process that may hang, die or run out of memory without taking the caller along.

Process pools of the libraries either have no time limit for one call, or wait for ever once a child dies while it
sends a result; with one child and one pipe, of which the caller holds one end only, its death is always seen.
"""

import ctypes
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

from ampere.media.decoder import DecoderCrashed, MediaError, TimedOut, TooLarge

P = ParamSpec("P")
R = TypeVar("R")
ATTEMPTS = (
    2  # a child may also die for reasons that are not the file's, such as a machine short of memory
)
PR_SET_PDEATHSIG = 1


class IsolatedProcess:
    """One child process, started at the first call; a new one takes its place when it dies or had to be killed.

    Args:
        time_limit_s: for one call, not counting a child's start.
        memory_limit_gb: of address space beyond what the child starts with.
    """

    def __init__(self, time_limit_s: float, memory_limit_gb: float) -> None:
        self.time_limit_s = time_limit_s
        self.memory_limit_gb = memory_limit_gb
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args, **kwargs)` in the child. All must be picklable.

        Raises:
            TimedOut: it took longer than the time limit.
            DecoderCrashed: the child died, and the next one too.
            TooLarge: it needs more memory than allowed.
            MediaError: as the function raised it; any other of its errors comes as one, too.
        """
        for _ in range(ATTEMPTS):
            try:
                pipe = self._pipe or self._start()
                pipe.send((function, args, kwargs))
                if not pipe.poll(self.time_limit_s):
                    self.stop()
                    raise TimedOut(f"not done within {self.time_limit_s:g} s; stopped")
                result = pickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                status = self.stop()
            else:
                if isinstance(result, MediaError):
                    raise result
                return result
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise DecoderCrashed(f"the decoding process died on it {ATTEMPTS} times ({how})")

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    __name__,
                    str(theirs.fileno()),
                    str(int(self.memory_limit_gb * 1e9)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Inside a Ray job this package is found by the worker's own path.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        weakref.finalize(self, _end, self._process)  # also when this process ends
        self._pipe = Connection(ours.detach())
        self._pipe.recv_bytes()  # it is ready: how long a busy machine takes to start it is no file's fault
        return self._pipe

    def stop(self) -> int:
        """Kill the child, if there is one, and return its exit status."""
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
    process.kill()  # changes nothing for one that is dead
    return process.wait()


def _limit_memory(beyond: int) -> None:
    """Let the process take `beyond` bytes of address space more than it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + beyond, present + beyond))


def _serve(pipe: Connection) -> None:
    """Say that it is ready; then answer calls until the caller is gone."""
    pipe.send_bytes(b"")
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer = pickle.dumps(function(*args, **kwargs))
        except MediaError as error:
            answer = pickle.dumps(error)
        except MemoryError:
            answer = pickle.dumps(
                TooLarge("it needs more memory than decode.memory_limit_gb allows")
            )
        except Exception as error:  # whatever a strange file raises costs that file alone
            answer = pickle.dumps(MediaError(f"{type(error).__name__}: {error}"))
        pipe.send_bytes(answer)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(
        PR_SET_PDEATHSIG, signal.SIGKILL
    )  # a caller killed amid a call leaves no busy child behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    import ampere.media.query  # noqa: F401  # loads what decoding needs, before the limit counts

    _limit_memory(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])))
