"""From a short run of a stage to what it costs: its start, and the work of a row.

A run of n rows on w workers takes `startup + n x work / w` seconds. The rate is that between the
w-th batch, when most workers have returned one, and the last: the start of the workers does not
change it, which varies more than the work of a short run. An engine of vLLM works on several
batches at once, so its first one comes late, and its rate is too high if the run has few batches.
Pure arithmetic: no Ray, no tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a stage.

    Attributes:
        samples: of the catalog that it ran on.
        rows: that it processed; some stages want a part of the samples only.
        first_rows: of the batches that the workers returned first, one of each worker.
        first_s: seconds from the start of the work to the last of these batches.
        work_s: seconds from the start of the work to the last batch.
        seconds: the whole run, with its plan before and its commits and merge of files.
        workers: tasks or actors that worked at once.
    """

    samples: int
    rows: int
    first_rows: int
    first_s: float
    work_s: float
    seconds: float
    workers: int

    @property
    def steady_s(self) -> float:
        """Seconds between the first batches and the last one."""
        return self.work_s - self.first_s


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What a stage costs.

    Attributes:
        startup_s: seconds before its workers do anything, and after: their start, the model, the
            plan, the last merge of files.
        worker_s: seconds of one worker per row.
        share: rows per sample of the catalog.
    """

    startup_s: float
    worker_s: float
    share: float


def fit(run: Measured) -> StageCost:
    """The cost of a stage from a run.

    Raises:
        ValueError: all rows came at once, so that the work of a row is unknown.
    """
    later = run.rows - run.first_rows
    if later <= 0 or run.steady_s <= 0:
        raise ValueError(
            f"its {run.rows} rows came at once, so the time of a row is unknown. Give a "
            "larger --sample"
        )
    row_s = run.steady_s / later
    return StageCost(
        startup_s=max(0.0, run.seconds - run.rows * row_s),
        worker_s=row_s * run.workers,
        share=run.rows / run.samples,
    )


def measured(
    arrivals: Sequence[tuple[float, int]],
    *,
    samples: int,
    rows: int,
    seconds: float,
    workers: int,
) -> Measured:
    """A run from the batches that it returned.

    Args:
        arrivals: seconds from the start of the work, and rows, of each batch. Their sum may differ
            from `rows`: equal inputs are processed once, and one row may be made of several.
        samples, rows, seconds, workers: see `Measured`.

    Raises:
        ValueError: there are none.
    """
    first, arrived = arrivals[:workers], sum(count for _, count in arrivals)
    if not arrived:
        raise ValueError(f"none of its {rows} rows needed work. Give a larger --sample")
    share = sum(count for _, count in first) / arrived
    return Measured(
        samples=samples,
        rows=rows,
        first_rows=round(share * rows),
        first_s=first[-1][0],
        work_s=arrivals[-1][0],
        seconds=seconds,
        workers=workers,
    )


def add(costs: list[StageCost]) -> StageCost:
    """The cost of parts of one stage that run one after another on the same rows."""
    return StageCost(
        startup_s=sum(cost.startup_s for cost in costs),
        worker_s=sum(cost.worker_s for cost in costs),
        share=max(cost.share for cost in costs),
    )
