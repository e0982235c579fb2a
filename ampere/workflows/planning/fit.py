"""From a short run of a stage to what it costs: its start, and the work of a row.

A run of n rows on w workers takes `startup + n x work / w` seconds. The rate is that between the
first results and the last ones, which the start does not change: on a busy machine it varies more
than the work of a short run. Pure arithmetic: no Ray, no tables.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a stage.

    Attributes:
        samples: of the catalog that it ran on.
        rows: that it processed; some stages want a part of the samples only.
        first_rows: that were there first, from one worker.
        first_s: seconds from the start of the work to the first rows.
        work_s: seconds from the start of the work to the last rows.
        seconds: the whole run, with its plan before and its merge of files after the work.
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
        """Seconds between the first and the last rows."""
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


def fit(measured: Measured) -> StageCost:
    """The cost of a stage from a run.

    Raises:
        ValueError: all rows came at once, so that the work of a row is unknown.
    """
    # When the first rows came from one worker, the others had worked as long.
    later = measured.rows - measured.workers * measured.first_rows
    if later <= 0 or measured.steady_s <= 0:
        raise ValueError(
            f"its {measured.rows} rows came at once, so the time of a row is unknown. Give a "
            "larger --sample"
        )
    row_s = measured.steady_s / later
    return StageCost(
        startup_s=max(0.0, measured.seconds - measured.rows * row_s),
        worker_s=row_s * measured.workers,
        share=measured.rows / measured.samples,
    )


def add(costs: list[StageCost]) -> StageCost:
    """The cost of parts of one stage that run one after another on the same rows."""
    return StageCost(
        startup_s=sum(cost.startup_s for cost in costs),
        worker_s=sum(cost.worker_s for cost in costs),
        share=max(cost.share for cost in costs),
    )
