"""The progress bar of a stage: rows done and failed, throughput, and what it waits for at first."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from ampere.pipeline.runner.report import Report

TERMINAL_REFRESH_S = 1.0
LOG_REFRESH_S = 30.0  # in a file every refresh is a line


def refresh_s() -> float:
    """Seconds between two states of a progress bar on stderr."""
    return TERMINAL_REFRESH_S if sys.stderr.isatty() else LOG_REFRESH_S


class Progress:
    """A progress bar on stderr; before the first result it shows what the stage waits for.

    Args:
        name: of the stage.
        total: rows to process.
        unit: name of a row.
        startup: what the first rows wait for, such as "loading the model".
    """

    def __init__(self, name: str, total: int, unit: str, startup: str) -> None:
        self.start = time.monotonic()
        self._refresh_s = refresh_s()
        self._bar = tqdm(
            total=total, desc=name, unit=unit, file=sys.stderr, mininterval=self._refresh_s
        )
        self._startup = startup
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._show_startup, daemon=True, name="progress")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_startup()
        self._bar.close()

    def update(self, rows: int, report: Report) -> None:
        """Count `rows` more, and show failures and throughput of the report."""
        self._end_startup()
        seconds = time.monotonic() - self.start
        if not report.first_seconds:
            report.first_seconds = seconds
        postfix: dict[str, object] = {"failed": report.failed.total()}
        for name, total in report.totals.items():
            postfix[f"{name}/s"] = f"{total / seconds:.3g}"
        self._bar.set_postfix(postfix, refresh=False)
        self._bar.update(rows)

    def _end_startup(self) -> None:
        self._started.set()
        self._thread.join()

    def _show_startup(self) -> None:
        self._bar.set_postfix_str(self._startup)
        while not self._started.wait(self._refresh_s):
            self._bar.set_postfix_str(f"{self._startup}, {time.monotonic() - self.start:.0f} s")
