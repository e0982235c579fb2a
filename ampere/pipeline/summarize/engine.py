"""vLLM engines under `ray.data.llm`: how they are configured, sized and fed.

Light actors make the prompts before an engine and read its completions after it, tokens included,
so that an engine's process only runs its model.
"""

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ampere.config.checks import worker_range
from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.engine_patches import patched
from ampere.pipeline.runner.engines import ENGINE_ENV, HELPER_CPUS, engine_pool
from ampere.pipeline.runner.ray_data import ATTEMPTS_BEFORE_ISOLATION, map_batches
from ampere.pipeline.runner.stage import Work
from ampere.pipeline.summarize.engine_rows import FormPrompts, ReadCompletions
from ampere.pipeline.summarize.model import language_model, prompt_builder
from ampere.pipeline.summarize.rows import model_name
from ampere.store.transcripts import SampleTexts
from ampere.text.summary import SCHEMA

if TYPE_CHECKING:
    import ray.data
    from ray.data.llm import vLLMEngineProcessorConfig

    from ampere.text.llm import PromptBuilder
    from ampere.text.sizing import EngineSize

LONGEST_COUNTED = 500  # transcripts whose tokens are counted to size the engines: the longest ones,
OTHERS_COUNTED = 1500  # and some of the others


def completions(work: Work, settings: SummarizeSettings, texts: SampleTexts) -> "ray.data.Dataset":
    """Summarize with vLLM.

    Args:
        work: rows with sample_id, fingerprint, position and length.
        settings: of the stage.
        texts: that the positions refer to.

    Returns:
        Rows of `COMPLETION_SCHEMA`.
    """
    os.environ.update(ENGINE_ENV)  # Ray's engine stage imports parts of vLLM in this process too
    from ray.data import ActorPoolStrategy
    from ray.data.llm import build_processor

    size = engine_size_for(work.rows, settings, texts)
    config = engine_config(settings, size, batch_size=work.batch_size if work.isolated else None)
    sampling = sampling_params(settings)
    processor = patched(
        build_processor(
            config,
            preprocess=lambda row: {"sampling_params": sampling},
            preprocess_map_kwargs={"num_cpus": HELPER_CPUS},
            postprocess_map_kwargs={"num_cpus": HELPER_CPUS},
        )
    )
    model, prompt = language_model(settings)
    _, max_workers = worker_range("summarize.workers", settings.workers)
    # Actors, not tasks: a task may run in any process, and loading a tokenizer takes longer than
    # most batches. One actor of each kind, until it falls behind.
    options: dict[str, Any] = {
        "attempts": ATTEMPTS_BEFORE_ISOLATION,
        "batch_size": None,
        "num_cpus": HELPER_CPUS,
        "compute": ActorPoolStrategy(min_size=1, max_size=1 if work.isolated else max_workers),
    }
    prompts = map_batches(
        work.blocks,
        FormPrompts,
        fn_constructor_kwargs={
            # With the limit that is known here, so that it need not read the model's config again.
            "settings": replace(settings, max_model_len=prompt_builder(settings).limit),
            "texts": texts,
        },
        batch_format="pyarrow",
        **options,
    )
    return map_batches(
        processor(prompts),
        ReadCompletions,
        fn_constructor_kwargs={
            "settings": settings,
            "origin": {
                "model": model_name(settings),
                "weights": model_identity(model.source),
                "prompt_version": prompt.version,
            },
            "max_model_len": size.max_model_len,
            "is_retry": work.isolated,
        },
        batch_format="numpy",
        **options,
    )


def sampling_params(settings: SummarizeSettings) -> dict[str, Any]:
    """Sampling parameters of vLLM: the same transcript gives the same JSON object of `SCHEMA`."""
    return {
        "temperature": 0.0,
        "max_tokens": settings.max_tokens,
        "structured_outputs": {"json": json.dumps(SCHEMA)},
        "detokenize": False,
    }


def engine_size_for(
    rows: pa.Table, settings: SummarizeSettings, texts: SampleTexts
) -> "EngineSize":
    """The size that the settings name; the rest from the longest transcripts and some others.

    Args:
        rows: with position and length.
        settings: of the stage.
        texts: that the positions refer to.
    """
    from ampere.text.sizing import CPU_CACHE_BYTES, engine_size

    order = rows.sort_by([("length", "descending")])["position"].to_pylist()
    step = max(1, len(order) // OTHERS_COUNTED)
    counted = order[:LONGEST_COUNTED] + order[LONGEST_COUNTED::step]
    builder = prompt_builder(settings)
    lengths = [
        length for text in texts.take(sorted(counted)) for length in prompt_lengths(builder, text)
    ]
    memory = None if settings.gpus else CPU_CACHE_BYTES
    if settings.kv_cache_gb is not None:
        memory = int(settings.kv_cache_gb * 2**30)
    size = engine_size(
        lengths or [builder.overhead],
        answer_tokens=settings.max_tokens,
        limit=builder.limit,
        kv_bytes_per_token=builder.kv_bytes_per_token(),
        memory=memory,
    )
    return replace(
        size,
        max_model_len=settings.max_model_len or size.max_model_len,
        max_num_seqs=settings.max_num_seqs or size.max_num_seqs,
        kv_cache_bytes=size.kv_cache_bytes if settings.kv_cache_gb is None else memory,
    )


def prompt_lengths(builder: "PromptBuilder", text: str) -> list[int]:
    """Tokens of each prompt of a transcript; none if they cannot be made."""
    try:
        return [len(prompt.tokens) for prompt in builder.prompts(text)]
    except Exception:  # the per-row edge, as in FormPrompts, which records the error
        return []


def engine_config(
    settings: SummarizeSettings, size: "EngineSize", *, batch_size: int | None
) -> "vLLMEngineProcessorConfig":
    """The engine pool of the stage; see `engine_pool`.

    Args:
        settings: of the stage.
        size: of an engine.
        batch_size: rows of an isolated batch; None: the batches of the settings.
    """
    model, _ = language_model(settings)
    arguments = engine_arguments(settings, size)
    return engine_pool(
        "summarize", settings, model=model.source, arguments=arguments, batch_size=batch_size
    )


def engine_arguments(settings: SummarizeSettings, size: "EngineSize") -> dict[str, Any]:
    """Arguments of the vLLM engine itself."""
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
