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

ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "ERROR"}
# With the `uni` executor: the model runs in the engine's process. One more process would take as
# long to start as a thousand summaries.
CPU_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
HELPER_CPUS = 0.1  # of an actor beside an engine: whole cores would leave none for the engine
LONGEST_COUNTED = 500  # transcripts whose tokens are counted to size the engines: the longest ones,
OTHERS_COUNTED = 1500  # and some of the others
QUEUED = 2  # times the batches that an engine works on; Ray grows a pool from 1.75 on
# (actor_pool_util_upscaling_threshold)


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
    """Ray's configuration of the engine pool.

    Args:
        settings: of the stage.
        size: of an engine.
        batch_size: rows of an isolated batch: one engine, which gets one batch at a time. None:
            several engines, and the batches of the settings.
    """
    from ray.data.llm import vLLMEngineProcessorConfig

    model, _ = language_model(settings)
    bundle = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    # Twice the sequences that an engine holds, so that it never waits for the next batch.
    batches = 1 if batch_size else max(2, -(-2 * size.max_num_seqs // settings.batch_size))
    workers = (1, 1) if batch_size else worker_range("summarize.workers", settings.workers)
    return vLLMEngineProcessorConfig(
        model_source=model.source,
        engine_kwargs=engine_arguments(settings, size),
        batch_size=batch_size or settings.batch_size,
        concurrency=workers,
        max_concurrent_batches=batches,
        # A pool grows only if its queue is longer than what its engines work on.
        max_tasks_in_flight_per_actor=batches if batch_size else QUEUED * batches,
        placement_group_config={"bundle_per_worker": bundle},
        accelerator_type=settings.accelerator_type,
        runtime_env={"env_vars": ENGINE_ENV | (CPU_ENGINE_ENV if settings.gpus == 0 else {})},
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
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
