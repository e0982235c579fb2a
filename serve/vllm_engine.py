"""An engine of vLLM in a replica: prompts of many callers run together in it."""

import itertools
import logging
import os
from typing import Any, NoReturn

logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


class VllmEngine:
    """An engine and its process.

    Args:
        model: hub name or folder.
        arguments: of the engine.
    """

    def __init__(self, model: str, arguments: dict[str, Any]) -> None:
        from vllm import AsyncEngineArgs, AsyncLLMEngine

        self.engine = AsyncLLMEngine.from_engine_args(
            AsyncEngineArgs(model=model, disable_log_stats=True, **arguments)
        )
        self._numbers = itertools.count()

    @property
    def model_config(self) -> Any:
        """vLLM's, of the model."""
        return self.engine.model_config

    @property
    def unfinished(self) -> int:
        """Number of prompts without a whole answer."""
        return self.engine.get_num_unfinished_requests()

    async def generate(self, prompt: dict[str, Any], sampling: dict[str, Any]) -> list[int]:
        """The tokens that the model generates; none of them is made after a cancellation.

        Args:
            prompt: of vLLM, such as one with `prompt_token_ids`.
            sampling: fields of `SamplingParams`, with `structured_outputs` as a dict.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        if structured := sampling.get("structured_outputs"):
            sampling = sampling | {"structured_outputs": StructuredOutputsParams(**structured)}
        params = SamplingParams(**sampling, output_kind=RequestOutputKind.FINAL_ONLY)
        tokens: list[int] = []
        try:
            async for output in self.engine.generate(prompt, params, str(next(self._numbers))):
                tokens = list(output.outputs[0].token_ids)
        except EngineDeadError:
            self._exit()
        return tokens

    def check(self) -> None:
        """End this process if the engine's process died."""
        if self.engine.errored:
            self._exit()

    def _exit(self) -> NoReturn:
        """End the replica: Serve then starts another at once, not after several health checks."""
        logger.error("the process of a vLLM engine died; the replica ends and is started again")
        os._exit(1)

    def stop(self) -> None:
        """End the engine's process."""
        self.engine.shutdown()
