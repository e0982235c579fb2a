"""From two short runs of a stage to what it costs: its start, and the work of a row.

A run of n rows on w workers takes `startup + n x work / w` seconds. Two runs of different size give
both unknowns. Pure arithmetic: no Ray, no tables.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a stage.

    Attributes:
        samples: of the catalog that it ran on.
        rows: that it processed; some stages want a part of the samples only.
        seconds: from its plan to its last commit, on a Ray that was running.
        workers: tasks or actors that worked at once.
    """

    samples: int
    rows: int
    seconds: float
    workers: int


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What a stage costs.

    Attributes:
        startup_s: seconds before its workers do anything: their start, the model, the last commit.
        worker_s: seconds of one worker per row.
        share: rows per sample of the catalog.
    """

    startup_s: float
    worker_s: float
    share: float


def fit(small: Measured, large: Measured) -> StageCost:
    """The cost of a stage from two runs on the same number of workers.

    Raises:
        ValueError: the larger run did not take longer, so that the work of a row is unknown.
    """
    rows, seconds = large.rows - small.rows, large.seconds - small.seconds
    if rows <= 0 or seconds <= 0:
        raise ValueError(
            f"{small.rows} rows took {small.seconds:.1f} s and {large.rows} rows "
            f"{large.seconds:.1f} s, so the work of a row is lost in the noise. Give a larger "
            "--sample"
        )
    row_s = seconds / rows
    return StageCost(
        startup_s=max(0.0, small.seconds - small.rows * row_s),
        worker_s=row_s * large.workers,
        share=large.rows / large.samples,
    )


def bytes_per_sample(
    small: dict[str, int], large: dict[str, int], samples: int
) -> dict[str, float]:
    """Bytes that a sample adds to each table.

    Args:
        small, large: bytes of each table after the two runs.
        samples: how many more the larger run had.
    """
    return {name: (large[name] - small.get(name, 0)) / samples for name in large}
