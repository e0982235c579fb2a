"""The way of a training's metrics from its workers to the driver."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from ampere.pipeline.train.trackers import Progress


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
        yield queue
    finally:
        queue.put(None)
        watcher.join()
        queue.shutdown()
