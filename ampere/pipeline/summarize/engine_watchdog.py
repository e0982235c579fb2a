"""An engine whose process died takes its actor with it, so that Ray starts another and tries its batches again.

Ray does so where a request fails. But requests that reach vLLM before the first answer wait for a word of the engine
(what tasks it supports) that no one takes back when it dies, and a batch of them would wait for ever.
"""

import asyncio
import os
import uuid
from typing import Any

LOOK_S = 1.0  # between two looks at the engine, by a request that waits


def mortal(stage: type[Any]) -> type[Any]:
    """`ray.data.llm`'s engine stage, whose process ends when it waits for an engine that is dead."""

    class Engine(stage):
        async def _generate_with_error_handling(
            self, row: dict[str, Any], batch_uuid: uuid.UUID
        ) -> dict[str, Any]:
            answer = asyncio.create_task(super()._generate_with_error_handling(row, batch_uuid))
            while not (await asyncio.wait({answer}, timeout=LOOK_S))[0]:
                if self.llm.engine.errored:
                    os._exit(
                        1
                    )  # as Ray does: an actor that ends otherwise does not have its tasks tried again
            return await answer

    return Engine
