"""Peak memory of a job with all its processes."""

import threading

import psutil


class PeakMemory:
    """Most memory that this process and its children have together, shared pages counted once (PSS)."""

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
            self.peak = max(
                self.peak,
                sum(map(_pss, psutil.Process().children(recursive=True))) + _pss(psutil.Process()),
            )


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
