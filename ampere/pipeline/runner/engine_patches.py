"""Changes to the engine stage of `ray.data.llm` (Ray 2.60, vLLM 0.32), each with its reason.

tests/pipeline/runner/test_engine_patches.py shows when a change is not needed any more.
"""

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ampere.pipeline.runner.ray_data import ATTEMPTS_BEFORE_ISOLATION

if TYPE_CHECKING:
    from ray.data.llm import Processor

ENGINE_STAGE = "vLLMEngineStage"
POLL_S = 1.0  # between two looks at the engine, by a request that waits for it


def patched(
    processor: "Processor", extend: Callable[[type[Any]], type[Any]] = lambda stage: stage
) -> "Processor":
    """Limit the retries of a processor's engine stage, and end actors whose engine is dead.

    - Ray retries a batch that kills its actor for ever (`max_task_retries=-1`, ray#59522). Here it
      is lost after a few attempts, and the stage runner isolates its rows.
    - An actor whose engine is dead exits, also if a request waits for the first answer of that
      engine; see `exit_on_dead_engine`.

    Args:
        processor: of `ray.data.llm`.
        extend: makes a subclass of the engine stage's class, for what it does with a row.
    """
    stage = processor.get_stage_by_name(ENGINE_STAGE)
    stage.map_batches_kwargs["max_task_retries"] = ATTEMPTS_BEFORE_ISOLATION - 1
    # A copy: an assignment makes the stage compute its resources again, from values that it has
    # removed already, and it would ask for a GPU.
    processor.stages[ENGINE_STAGE] = stage.model_copy(
        update={"fn": extend(exit_on_dead_engine(stage.fn))}
    )
    return processor


def exit_on_dead_engine(stage: type[Any]) -> type[Any]:
    """An engine stage whose process exits if a request waits for an engine that is dead.

    Ray restarts the actor, and retries its batches, if a request fails with `EngineDeadError`
    (ray#60145). But requests that arrive before the first answer wait in vLLM's
    `get_supported_tasks`, which nobody cancels when the engine dies, so they would hang.
    """

    class Engine(stage):
        async def _generate_with_error_handling(
            self, row: dict[str, Any], batch_uuid: uuid.UUID
        ) -> dict[str, Any]:
            request = asyncio.create_task(super()._generate_with_error_handling(row, batch_uuid))
            while not (await asyncio.wait({request}, timeout=POLL_S))[0]:
                if self.llm.engine.errored:
                    os._exit(1)  # as Ray does: its tasks are retried after no other kind of exit
            return await request

    return Engine
