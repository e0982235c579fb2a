"""The metrics of a row-by-row stage while it runs."""

from collections.abc import Callable

from ampere.pipeline.metrics import (
    BYTES_READ,
    DATA_WAIT,
    ROWS_PENDING,
    WORKERS,
    WORKERS_LIMIT,
    Publisher,
    set_gauge,
)
from ampere.pipeline.runner.report import Report


def stage_metrics(report: Report, pending: Callable[[], int]) -> Publisher:
    """Publishes the rows of a report, those that wait, and the pools that work on them.

    Args:
        report: of the stage; grows while it runs.
        pending: returns the rows that wait.
    """
    # Ray Data is not imported before a stage needs it.
    from ray.data import DataContext

    from ampere.pipeline.runner.pool_observer import POOLS, PoolObserver

    observers = DataContext.get_current().custom_execution_callback_classes
    if PoolObserver not in observers:
        observers.append(PoolObserver)
    POOLS.clear()
    stage = report.stage

    def look(publisher: Publisher) -> None:
        publisher.count_report(report)
        set_gauge(ROWS_PENDING, pending(), stage=stage)
        for name, pool in POOLS.get().items():
            set_gauge(WORKERS, pool.ready, stage=stage, pool=name, state="ready")
            set_gauge(WORKERS, pool.starting, stage=stage, pool=name, state="starting")
            if pool.limit:
                set_gauge(WORKERS_LIMIT, pool.limit, stage=stage, pool=name)
                publisher.count_to(DATA_WAIT, pool.idle_s, stage=stage, pool=name)
                publisher.count_to(BYTES_READ, pool.bytes_read, stage=stage, pool=name)

    return Publisher(look)
