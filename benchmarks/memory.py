"""Peak memory of a job with all its processes, or of this process alone."""

import threading

import psutil


class PeakMemory:
    """Peak memory in bytes of this process and its children, shared pages counted once (PSS).

    It is sampled once per second, from entering the context to leaving it.

    Attributes:
        peak: the highest sample so far.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.peak = max(self.peak, sum(map(_pss, processes)))


class PeakResident:
    """Peak resident memory in bytes of this process alone, sampled 50 times per second.

    Attributes:
        peak: the highest sample so far.
    """

    def __enter__(self) -> "PeakResident":
        self.peak = psutil.Process().memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, process.memory_info().rss)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # the process ended
        return 0
