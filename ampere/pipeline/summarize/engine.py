"""vLLM engines under `ray.data.llm`: how they are configured, sized and fed.

Light actors make the prompts before an engine and read its completions after it, tokens included,
so that an engine's process only runs its model.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ampere.config.checks import worker_range
from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.engine_patches import patched
from ampere.pipeline.runner.engines import HELPER_CPUS, engine_pool, helper_tasks
from ampere.pipeline.runner.ray_data import ATTEMPTS_BEFORE_ISOLATION, map_batches
from ampere.pipeline.runner.stage import Work
from ampere.pipeline.summarize.engine_rows import FormPrompts, ReadCompletions
from ampere.pipeline.summarize.rows import model_name
from ampere.store.transcripts import SampleTexts
from ampere.text.language_models import language_model
from ampere.text.llm_engine import (
    engine_arguments,
    prompt_builder,
    sampling_params,
    size_for_prompts,
)
from ampere.text.vllm_env import ENGINE_ENV

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
    helpers = helper_tasks("summarize", settings)
    processor = patched(
        build_processor(
            config,
            preprocess=lambda row: {"sampling_params": sampling},
            preprocess_map_kwargs=helpers,
            postprocess_map_kwargs=helpers,
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


def engine_size_for(
    rows: pa.Table, settings: SummarizeSettings, texts: SampleTexts
) -> "EngineSize":
    """The size that the settings name; the rest from the longest transcripts and some others.

    Args:
        rows: with position and length.
        settings: of the stage.
        texts: that the positions refer to.
    """
    order = rows.sort_by([("length", "descending")])["position"].to_pylist()
    step = max(1, len(order) // OTHERS_COUNTED)
    counted = order[:LONGEST_COUNTED] + order[LONGEST_COUNTED::step]
    builder = prompt_builder(settings)
    lengths = [
        length for text in texts.take(sorted(counted)) for length in prompt_lengths(builder, text)
    ]
    return size_for_prompts(settings, lengths or [builder.overhead])


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
