"""The pools of the Ray Data pipeline that this process runs: their sizes, and how they wait.

Ray Data calls `PoolObserver` in each step of its scheduling. It has metrics of its own, without the
name of the stage.
"""

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray.data._internal.execution.execution_callback import ExecutionCallback

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

OBSERVE_S = 1.0  # Ray schedules many times a second
WORK = re.compile(r"MapBatches\((\w+)\)")


@dataclass
class Pool:
    """A pool of actors, or the tasks of one kind.

    Attributes:
        ready: actors, or tasks that run.
        starting: actors.
        limit: largest number of actors; 0: tasks, which have none.
        idle_s: seconds that ready actors had no batch, added over the actors.
        bytes_read: of the blocks that were processed.
        bytes_before: those of them that earlier pipelines of the stage processed.
    """

    ready: int = 0
    starting: int = 0
    limit: int = 0
    idle_s: float = 0.0
    bytes_read: int = 0
    bytes_before: int = 0


class Pools:
    """The pools of this process's pipeline, by the name of their work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[str, Pool] = {}
        self._seen = 0.0

    def clear(self) -> None:
        """Forget the pools of the last stage."""
        with self._lock:
            self._pools = {}

    def begin(self) -> None:
        """Expect another pipeline of the stage, which counts its bytes from zero."""
        with self._lock:
            self._pools = {
                name: Pool(
                    idle_s=pool.idle_s, bytes_read=pool.bytes_read, bytes_before=pool.bytes_read
                )
                for name, pool in self._pools.items()
            }

    def get(self) -> dict[str, Pool]:
        """The pools as they were seen last."""
        with self._lock:
            return dict(self._pools)

    def see(self, executor: "StreamingExecutor", *, is_last: bool = False) -> None:
        """Look at the pools of a pipeline: at most once in `OBSERVE_S`, and a last time."""
        now = time.monotonic()
        if now - self._seen < OBSERVE_S and not is_last:
            return
        seconds, self._seen = min(now - self._seen, 2 * OBSERVE_S), now
        with self._lock:
            for operator in executor._topology or ():
                if name := "+".join(WORK.findall(operator.name)):
                    before = self._pools.get(name, Pool())
                    self._pools[name] = seen_pool(operator, before, seconds)


def seen_pool(operator: object, before: Pool, seconds: float) -> Pool:
    """A pool now.

    Args:
        operator: of Ray Data's pipeline.
        before: the same pool at the last look.
        seconds: since then.
    """
    metrics = operator.metrics  # type: ignore[attr-defined]  # Ray is not typed here
    pools = operator.get_autoscaling_actor_pools()  # type: ignore[attr-defined]
    if not pools:
        return Pool(ready=metrics.num_tasks_running)
    (pool,) = pools
    idle = pool.num_idle_actors()
    return Pool(
        ready=pool.num_alive_actors(),
        starting=pool.num_pending_actors() + pool.num_restarting_actors(),
        limit=pool.max_size(),
        idle_s=before.idle_s + idle * seconds,
        bytes_read=before.bytes_before + metrics.bytes_task_inputs_processed,
        bytes_before=before.bytes_before,
    )


POOLS = Pools()


class PoolObserver(ExecutionCallback):
    """Shows a pipeline to `POOLS`; Ray makes an object of it for each pipeline."""

    def before_execution_starts(self, executor: "StreamingExecutor") -> None:
        """Begin with the pools of a pipeline."""
        POOLS.begin()

    def on_execution_step(self, executor: "StreamingExecutor") -> None:
        """Look at the pools."""
        POOLS.see(executor)

    def after_execution_succeeds(self, executor: "StreamingExecutor") -> None:
        """Look at what the pools did since the last step."""
        POOLS.see(executor, is_last=True)
