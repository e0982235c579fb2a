"""The metrics of stages and of search: their names, and how they are recorded.

Ray's agent on each node exports them for Prometheus under `EXPORT_PREFIX`. Without a connection to
Ray nobody exports them, and nothing is recorded. Nothing is done for each row: a thread looks every
few seconds at what is counted anyway. docs/guides/watching.md says what each metric means.
"""

import functools
import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from ampere.cluster import cluster_address, connect, is_connected

if TYPE_CHECKING:
    from ampere.pipeline.runner.report import Report

logger = logging.getLogger(__name__)
EXPORT_PREFIX = "ray_"  # Ray's, of all metrics
# Ray drops a gauge that was not set for 20 s (open_telemetry_metric_recorder.py).
REFRESH_S = 5.0
SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


@dataclass(frozen=True)
class Metric:
    """What a metric is.

    Attributes:
        name: with its unit, as Prometheus advises; counters end in `_total`.
        kind: of Ray's classes.
        help: one line for people.
        labels: names; Ray adds those of the node and the process.
    """

    name: str
    kind: Literal["Counter", "Gauge", "Histogram"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Name in Prometheus."""
        return EXPORT_PREFIX + self.name


ROWS_DONE = Metric("ampere_rows_done_total", "Counter", "Rows with a result", ("stage",))
ROWS_FAILED = Metric(
    "ampere_rows_failed_total", "Counter", "Rows that failed, by error", ("stage", "error")
)
ROWS_PENDING = Metric(
    "ampere_rows_pending", "Gauge", "Rows that wait in a stage that runs", ("stage",)
)
WORKERS = Metric(
    "ampere_workers",
    "Gauge",
    "Workers of a pool: ready, or starting; of tasks, those that run",
    ("stage", "pool", "state"),
)
WORKERS_LIMIT = Metric(
    "ampere_workers_limit", "Gauge", "Largest size that a pool may grow to", ("stage", "pool")
)
DATA_WAIT = Metric(
    "ampere_data_wait_seconds_total",
    "Counter",
    "Seconds that ready workers waited for rows, added over the workers",
    ("stage", "pool"),
)
BYTES_READ = Metric(
    "ampere_bytes_read_total",
    "Counter",
    "Bytes of media files, or of what a pool's workers took in",
    ("stage", "pool"),
)
TOKENS = Metric(
    "ampere_tokens_total", "Counter", "Tokens of a language model", ("stage", "direction")
)
AUDIO_SECONDS = Metric(
    "ampere_audio_seconds_total", "Counter", "Seconds of audio that was transcribed", ("stage",)
)
INDEX_CHANGED = Metric(
    "ampere_index_changed_timestamp_seconds",
    "Gauge",
    "When the newest change that a search index knows was made, in seconds since the epoch",
    ("model",),
)
SEARCH_STEP = Metric(
    "ampere_search_step_seconds", "Histogram", "Time of a step of a query", ("step",)
)
METRICS = (
    ROWS_DONE, ROWS_FAILED, ROWS_PENDING, WORKERS, WORKERS_LIMIT, DATA_WAIT, BYTES_READ, TOKENS,
    AUDIO_SECONDS, INDEX_CHANGED, SEARCH_STEP,
)  # fmt: skip

# Quantity of a `Report` -> its metric, labels beside the stage, and units of the metric in one.
QUANTITIES: dict[str, tuple[Metric, dict[str, str], float]] = {
    "GB": (BYTES_READ, {"pool": "media"}, 1e9),
    "tokens in": (TOKENS, {"direction": "in"}, 1.0),
    "tokens out": (TOKENS, {"direction": "out"}, 1.0),
    "audio s": (AUDIO_SECONDS, {}, 1.0),
}


@functools.cache
def _of_ray(metric: Metric) -> Any:
    """Ray's object of a metric."""
    from ray.util import metrics

    options = {"boundaries": SECONDS} if metric.kind == "Histogram" else {}
    make = getattr(metrics, metric.kind)
    return make(metric.name, description=metric.help, tag_keys=metric.labels, **options)


def set_gauge(metric: Metric, value: float, **labels: str) -> None:
    """Set a gauge, which lasts for 20 s."""
    if is_connected():
        _of_ray(metric).set(value, labels)


def observe(metric: Metric, value: float, **labels: str) -> None:
    """Add a value to a histogram; takes microseconds."""
    if is_connected():
        _of_ray(metric).observe(value, labels)


class Publisher:
    """Looks at what is counted every `REFRESH_S`, and a last time at the end.

        with Publisher(look):
            ...  # look(publisher) calls `count_to` and `set_gauge`

    Args:
        look: called in a thread of its own, and at the end in that of the caller.
    """

    def __init__(self, look: "Callable[[Publisher], None]") -> None:
        self._look = look
        self._counted: defaultdict[tuple[Any, ...], float] = defaultdict(float)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look_once()

    def _run(self) -> None:
        while not self._ended.wait(REFRESH_S):
            self._look_once()

    def _look_once(self) -> None:
        try:
            self._look(self)
        except Exception:  # such as a table that cannot be read now: the work goes on
            logger.exception("metrics are not published; the next try is in %g s", REFRESH_S)

    def count_to(self, metric: Metric, total: float, **labels: str) -> None:
        """Raise a counter by what a total has grown; a smaller total changes nothing."""
        key = (metric.name, *sorted(labels.items()))
        added = total - self._counted[key]
        if added > 0 and is_connected():
            _of_ray(metric).inc(added, labels)
            self._counted[key] = total

    def count_report(self, report: "Report") -> None:
        """Count the rows and quantities of a report, which may still grow."""
        self.count_to(ROWS_DONE, report.done, stage=report.stage)
        for error, count in dict(report.failed).items():  # copies: another thread adds to them
            self.count_to(ROWS_FAILED, count, stage=report.stage, error=error)
        for quantity, amount in dict(report.totals).items():
            if quantity in QUANTITIES:
                metric, labels, units = QUANTITIES[quantity]
                self.count_to(metric, amount * units, stage=report.stage, **labels)


def publish_report(report: "Report") -> None:
    """Count the rows of a stage that used no Ray; connects to the cluster if there is one.

    The work is done: a cluster that does not answer costs its metrics only, and a line to stderr.
    """
    if cluster_address() is not None:
        try:
            connect()
        except (RuntimeError, ValueError) as error:
            print(f"{report.stage}: metrics are not published: {error}", file=sys.stderr)
    with Publisher(lambda publisher: publisher.count_report(report)):
        pass
