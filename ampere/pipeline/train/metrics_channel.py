"""The way of a training's metrics from its workers to the driver."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from ampere.pipeline.metrics import (
    DATA_WAIT,
    ROWS_DONE,
    ROWS_PENDING,
    WORKERS,
    WORKERS_LIMIT,
    Publisher,
    set_gauge,
)
from ampere.pipeline.train.trackers import Metrics, Progress


@contextmanager
def metrics_channel(progress: Progress) -> Iterator[Any]:
    """Open a Ray queue, and show in `progress` the metrics that workers put into it.

        with metrics_channel(progress) as queue:
            ...  # workers: queue.put({"step": 1, "epoch": 0.5, "contrastive": 2.0})

    On exit all metrics in the queue have been shown, and the trackers are closed.

    Raises:
        RuntimeError: a tracker cannot start; raised on entry, before hours of training without it.
    """
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node, since only the driver reads it: on a worker's node that dies, it would
    # make each retry of the training fail.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    started: Future[None] = Future()
    watcher = threading.Thread(target=progress.watch, args=(queue, started), daemon=True)
    watcher.start()
    try:
        started.result()
        with Publisher(partial(publish_training, progress)):
            yield queue
    finally:
        queue.put(None)
        watcher.join()
        queue.shutdown()


def publish_training(progress: Progress, publisher: Publisher) -> None:
    """Publish the products of all epochs as rows, and how long workers waited for batches.

    What a resumed training did before is counted with its first metrics.
    """
    stage, pool = "train", {"stage": "train", "pool": "train"}
    history, products = list(progress.history), progress.products
    done = products * history[-1]["epoch"] if history else 0.0
    publisher.count_to(ROWS_DONE, done, stage=stage)
    set_gauge(ROWS_PENDING, products * progress.settings.epochs - done, stage=stage)
    set_gauge(WORKERS, progress.settings.workers, **pool, state="ready")
    set_gauge(WORKERS_LIMIT, progress.settings.workers, **pool)
    publisher.count_to(DATA_WAIT, waited_s(history) * progress.settings.workers, **pool)


def waited_s(history: Sequence[Metrics]) -> float:
    """Seconds that the slowest worker waited for its batches."""
    steps = [0.0, *(metrics["step"] for metrics in history)]
    return sum(
        (metrics["step"] - before) * metrics["seconds_per_step"] * metrics["waiting_share"]
        for before, metrics in zip(steps, history, strict=False)
    )
