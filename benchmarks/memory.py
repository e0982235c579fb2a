"""Peak memory of a job with all its processes, or of this process alone."""

import threading
from typing import Self

import psutil


class PeakMemory:
    """Peak memory in bytes of this process and its children, shared pages counted once (PSS).

    It is sampled from entering the context to leaving it.

    Attributes:
        peak: the highest sample so far.
    """

    pause_s = 1.0  # between two samples

    def __enter__(self) -> Self:
        self.peak = self.sample()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.pause_s):
            self.peak = max(self.peak, self.sample())

    def sample(self) -> int:
        """The memory now."""
        return sum(map(_pss, [psutil.Process(), *psutil.Process().children(recursive=True)]))


class PeakResident(PeakMemory):
    """Peak resident memory in bytes of this process alone."""

    pause_s = 0.02  # a sample takes microseconds

    def sample(self) -> int:
        """The resident memory now."""
        return int(psutil.Process().memory_info().rss)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # the process ended
        return 0
