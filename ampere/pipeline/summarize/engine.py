"""Transcripts through vLLM engines under `ray.data.llm`: how the engines are described, sized and fed.

Prompts are formed before them and answers read after them by light actors, tokens included, so that an engine's process
does nothing but run its model.
"""

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa

from ampere.config.checks import worker_range
from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.ray_data import CAREFUL_TRIES, map_batches
from ampere.pipeline.runner.stage import Work
from ampere.pipeline.summarize.engine_rows import FormPrompts, ReadAnswers
from ampere.pipeline.summarize.engine_watchdog import mortal
from ampere.pipeline.summarize.model import asker, chosen_model
from ampere.text.summary import SCHEMA

if TYPE_CHECKING:
    import ray.data

    from ampere.text.llm import Asker
    from ampere.text.sizing import EngineSize

ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "ERROR"}
# Together with the `uni` executor: the model runs in the engine's process and not in one more, whose start alone takes
# as long as a thousand summaries.
CPU_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
LIGHT_CPUS = (
    0.1  # of the steps around the engine: whole cores would leave none for it on a small machine
)
LONGEST_COUNTED, SPREAD_COUNTED = (
    500,
    1500,
)  # transcripts whose tokens are counted to size the engines
QUEUE = 2  # times what an engine works on; Ray lets a pool grow from 1.75 on (actor_pool_util_upscaling_threshold)


def answers(
    work: Work, settings: SummarizeSettings, samples: lance.LanceDataset
) -> "ray.data.Dataset":
    """Rows (sample_id, fingerprint, position, length) to rows of `PART_SCHEMA`."""
    os.environ.update(ENGINE_ENV)  # Ray's engine stage imports parts of vLLM here, too
    from ray.data import ActorPoolStrategy
    from ray.data.llm import build_processor

    # Temperature 0: the same transcript gives the same summary. The schema leaves the answer no other form.
    sampling = {
        "temperature": 0.0,
        "max_tokens": settings.max_tokens,
        "structured_outputs": {"json": json.dumps(SCHEMA)},
        "detokenize": False,
    }
    size = sized(work.rows, settings, samples)
    processor = build_processor(
        engine_config(settings, size, careful=work.batch_size if work.careful else None),
        preprocess=lambda row: {"sampling_params": sampling},
        preprocess_map_kwargs={"num_cpus": LIGHT_CPUS},
        postprocess_map_kwargs={"num_cpus": LIGHT_CPUS},
    )
    engines = processor.get_stage_by_name("vLLMEngineStage")
    engines.map_batches_kwargs["max_task_retries"] = CAREFUL_TRIES - 1
    # A copy: on an assignment the stage works out its resources again, from what it has removed, and asks for a GPU.
    processor.stages["vLLMEngineStage"] = engines.model_copy(update={"fn": mortal(engines.fn)})
    model, prompt = chosen_model(settings)
    origin = {"model": model_identity(model.source), "prompt_version": prompt.version}
    _, most = worker_range("summarize.workers", settings.workers)
    # Actors, not tasks: a task can come to any process, and loading a tokenizer takes longer than most batches. One of
    # each kind until it falls behind.
    beside = {
        "tries": CAREFUL_TRIES,
        "batch_size": None,
        "num_cpus": LIGHT_CPUS,
        "compute": ActorPoolStrategy(min_size=1, max_size=1 if work.careful else most),
    }
    # With the limit that is known here, so that it need not read the model's config again.
    limited = replace(settings, max_model_len=asker(settings).limit)
    arguments = {"settings": limited, "uri": samples.uri, "version": samples.version}
    prompts = map_batches(
        work.blocks, FormPrompts, fn_constructor_kwargs=arguments, batch_format="pyarrow", **beside
    )
    arguments = {"settings": settings, "origin": origin, "max_model_len": size.max_model_len}
    return map_batches(
        processor(prompts),
        ReadAnswers,
        fn_constructor_kwargs=arguments,
        batch_format="numpy",
        **beside,
    )


def sized(rows: pa.Table, settings: SummarizeSettings, samples: lance.LanceDataset) -> "EngineSize":
    """The engine's size: what the settings name, the rest from the longest of these transcripts and some others."""
    from ampere.text.sizing import CPU_CACHE_BYTES, engine_size

    order = rows.sort_by([("length", "descending")])["position"].to_pylist()
    chosen = (
        order[:LONGEST_COUNTED] + order[LONGEST_COUNTED :: max(1, len(order) // SPREAD_COUNTED)]
    )
    texts = samples.take(sorted(chosen), columns=["text"])["text"].to_pylist()
    found = asker(settings)
    counts = [length for text in texts for length in prompt_lengths(found, text)]
    memory = None if settings.gpus else CPU_CACHE_BYTES
    if settings.kv_cache_gb is not None:
        memory = int(settings.kv_cache_gb * 2**30)
    size = engine_size(
        counts or [found.overhead],
        answer=settings.max_tokens,
        limit=found.limit,
        token_bytes=found.token_bytes(),
        memory=memory,
    )
    return replace(
        size,
        max_model_len=settings.max_model_len or size.max_model_len,
        max_num_seqs=settings.max_num_seqs or size.max_num_seqs,
        kv_cache_bytes=size.kv_cache_bytes if settings.kv_cache_gb is None else memory,
    )


def prompt_lengths(found: "Asker", text: str) -> list[int]:
    """Tokens of a transcript's prompts; none if they cannot be formed, which its row will tell."""
    try:
        return [len(question.tokens) for question in found.questions(text)]
    except Exception:  # the per-row edge, as in FormPrompts, where the error is kept
        return []


def engine_config(settings: SummarizeSettings, size: "EngineSize", *, careful: int | None) -> Any:
    """Ray's description of the engine pool.

    Args:
        settings: of the stage.
        size: of an engine.
        careful: rows of a block, where one engine is to have one block at a time, for Ray would join them to a larger
            batch. None: several engines, and batches as the settings have them.
    """
    from ray.data.llm import vLLMEngineProcessorConfig

    model, _ = chosen_model(settings)
    engine: dict[str, Any] = {
        "dtype": model.dtype,
        "max_model_len": size.max_model_len,
        "max_num_seqs": size.max_num_seqs,
        "enforce_eager": settings.gpus == 0,  # compiling pays on GPUs only
        "enable_prefix_caching": True,
        "trust_remote_code": model.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel_size,
        # A model could else put any number of line breaks between two keys, and never come to the end. The fields of
        # vLLM's StructuredOutputsConfig.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if model.quantization:
        engine["quantization"] = model.quantization
    if size.kv_cache_bytes is not None:
        engine["kv_cache_memory_bytes"] = size.kv_cache_bytes
    elif settings.gpus < 1:
        engine["gpu_memory_utilization"] = (
            0.9 * settings.gpus
        )  # as vLLM leaves a tenth of a whole GPU free
    if settings.gpus == 0:
        engine["distributed_executor_backend"] = "uni"
    bundle = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    # Twice the sequences that an engine holds, so that it never waits for the next batch.
    batches = 1 if careful else max(2, -(-2 * size.max_num_seqs // settings.batch_size))
    return vLLMEngineProcessorConfig(
        model_source=model.source,
        engine_kwargs=engine,
        batch_size=careful or settings.batch_size,
        concurrency=(1, 1) if careful else worker_range("summarize.workers", settings.workers),
        max_concurrent_batches=batches,
        # A pool grows when its queues are so much longer than what its engines work on; no longer, and it never would.
        max_tasks_in_flight_per_actor=batches if careful else QUEUE * batches,
        placement_group_config={"bundle_per_worker": bundle},
        accelerator_type=settings.accelerator_type,
        runtime_env={"env_vars": ENGINE_ENV | (CPU_ENGINE_ENV if settings.gpus == 0 else {})},
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
