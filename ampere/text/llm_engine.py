"""The vLLM engine of a language model that summarizes: what it is given, and what it answers.

The summarize stage and the endpoint's summarizer run their engines by it, so that the same
transcript gets the same summary from both.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ampere.config.summarize import SummarizeSettings
from ampere.text.language_models import language_model
from ampere.text.sizing import CPU_CACHE_BYTES, MAX_NUM_SEQS, EngineSize, engine_size
from ampere.text.summary import SCHEMA

if TYPE_CHECKING:  # llm.py imports transformers, which takes seconds
    from ampere.text.llm import Completion, PromptBuilder


@functools.cache
def prompt_builder(settings: SummarizeSettings) -> "PromptBuilder":
    """The prompt builder of some settings, one per process: loading a tokenizer takes seconds."""
    from ampere.text.llm import PromptBuilder

    model, prompt = language_model(settings)
    return PromptBuilder(
        model,
        prompt,
        answer_tokens=settings.max_tokens,
        piece_tokens=settings.piece_tokens,
        limit=settings.max_model_len,
    )


def sampling_params(settings: SummarizeSettings) -> dict[str, Any]:
    """Sampling parameters of vLLM: the same transcript gives the same JSON object of `SCHEMA`."""
    return {
        "temperature": 0.0,
        "max_tokens": settings.max_tokens,
        "structured_outputs": {"json": json.dumps(SCHEMA)},
        "detokenize": False,
    }


def size_for_prompts(
    settings: SummarizeSettings, prompt_tokens: Sequence[int], max_num_seqs: int = MAX_NUM_SEQS
) -> EngineSize:
    """The size that the settings name; the rest for prompts of these lengths.

    Args:
        settings: of the stage.
        prompt_tokens: length of each prompt, of all or of a sample that has the longest.
        max_num_seqs: prompts that there may be at once, unless the settings name it.
    """
    builder = prompt_builder(settings)
    memory = None if settings.gpus else CPU_CACHE_BYTES
    if settings.kv_cache_gb is not None:
        memory = int(settings.kv_cache_gb * 2**30)
    size = engine_size(
        prompt_tokens,
        answer_tokens=settings.max_tokens,
        limit=builder.limit,
        kv_bytes_per_token=builder.kv_bytes_per_token(),
        memory=memory,
        max_num_seqs=max_num_seqs,
    )
    return replace(
        size,
        max_model_len=settings.max_model_len or size.max_model_len,
        max_num_seqs=settings.max_num_seqs or size.max_num_seqs,
        kv_cache_bytes=size.kv_cache_bytes if settings.kv_cache_gb is None else memory,
    )


def engine_arguments(settings: SummarizeSettings, size: EngineSize) -> dict[str, Any]:
    """Arguments of the vLLM engine itself, without its model."""
    model, _ = language_model(settings)
    arguments: dict[str, Any] = {
        "dtype": model.dtype,
        "max_model_len": size.max_model_len,
        "max_num_seqs": size.max_num_seqs,
        "enforce_eager": settings.gpus == 0,  # compiling pays on GPUs only
        "enable_prefix_caching": True,
        "trust_remote_code": model.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel_size,
        # Otherwise a model may write line breaks between two keys without end. The fields are
        # those of vLLM's StructuredOutputsConfig.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if model.quantization:
        arguments["quantization"] = model.quantization
    if size.kv_cache_bytes is not None:
        arguments["kv_cache_memory_bytes"] = size.kv_cache_bytes
    elif settings.gpus < 1:  # vLLM leaves a tenth of a whole GPU free
        arguments["gpu_memory_utilization"] = 0.9 * settings.gpus
    if settings.gpus == 0:
        arguments["distributed_executor_backend"] = "uni"
    return arguments


class CompletionReader:
    """Reads the tokens that an engine generated.

    Args:
        settings: of the stage.
        max_model_len: tokens of a prompt and its completion together at which the engine stops.
    """

    def __init__(self, settings: SummarizeSettings, max_model_len: int) -> None:
        from ampere.text.llm import load_tokenizer

        self.tokenizer = load_tokenizer(language_model(settings)[0])
        self.settings = settings
        self.max_model_len = max_model_len

    def read(
        self, text: str, prompt_tokens: int, tokens: Sequence[int], error: str = ""
    ) -> "Completion":
        """What the engine generated for one piece of a transcript.

        Args:
            text: the piece.
            prompt_tokens: number of tokens of its prompt.
            tokens: that were generated.
            error: why the engine failed; empty if it did not.
        """
        from ampere.text.llm import Completion

        return Completion(
            text=text,
            raw_output=self.tokenizer.decode(tokens, skip_special_tokens=True),
            prompt_tokens=prompt_tokens,
            generated_tokens=len(tokens),
            finish_reason=self._finish_reason(prompt_tokens, len(tokens)),
            error=error or self._no_room(prompt_tokens, len(tokens)),
        )

    def _finish_reason(self, prompt_tokens: int, generated: int) -> str:
        """Why a completion ended, from the token counts: Ray drops vLLM's `finish_reason`."""
        at_limit = generated >= self.settings.max_tokens
        at_limit = at_limit or prompt_tokens + generated >= self.max_model_len
        return "length" if at_limit else "stop"

    def _no_room(self, prompt_tokens: int, generated: int) -> str:
        """Why an engine sized for other transcripts cut the completion; empty if it did not.

        An engine that is sized again may have room for it. That does not help if the settings name
        the size.
        """
        is_sized = self.settings.max_model_len is None
        is_cut = prompt_tokens + generated >= self.max_model_len
        if not is_sized or generated >= self.settings.max_tokens or not is_cut:
            return ""
        return (
            f"the engine had room for {self.max_model_len} tokens; the prompt's {prompt_tokens} "
            "left too few for the completion"
        )
