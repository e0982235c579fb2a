"""Pools of vLLM engines under `ray.data.llm`, for all stages that run a model in them."""

from typing import TYPE_CHECKING, Any, Protocol

from ampere.config.checks import worker_range
from ampere.text.vllm_env import engine_env

if TYPE_CHECKING:
    from ray.data.llm import vLLMEngineProcessorConfig

HELPER_CPUS = 0.1  # of an actor beside an engine: whole cores would leave none for the engine
QUEUED = 2  # times the batches that an engine works on; Ray grows a pool from 1.75 on
# (actor_pool_util_upscaling_threshold)


class EnginePoolSettings(Protocol):
    """What the settings of a stage say about its engines."""

    @property
    def batch_size(self) -> int:
        """Rows per batch."""

    @property
    def workers(self) -> str:
        """Number of engines, or MIN:MAX."""

    @property
    def cpus(self) -> float:
        """CPU cores per engine."""

    @property
    def gpus(self) -> float:
        """GPUs per engine."""

    @property
    def accelerator_type(self) -> str | None:
        """Ray's name of the GPU type; None: any."""


def helper_tasks(stage: str, settings: EnginePoolSettings) -> dict[str, Any]:
    """Ray's options for tasks before and after the engines: at most one for each engine.

    Ray keeps a share of all cores for tasks without a bound. On nodes of few cores the rest has no
    place for a second engine, and the pool does not grow.

    Args:
        stage: name of its settings in messages.
        settings: of the stage.
    """
    from ray.data import TaskPoolStrategy

    _, most = worker_range(f"{stage}.workers", settings.workers)
    return {"num_cpus": HELPER_CPUS, "compute": TaskPoolStrategy(size=most)}


def engine_pool(
    stage: str,
    settings: EnginePoolSettings,
    *,
    model: str,
    arguments: dict[str, Any],
    batch_size: int | None,
) -> "vLLMEngineProcessorConfig":
    """Ray's configuration of an engine pool.

    Args:
        stage: name of its settings in messages.
        settings: of the stage.
        model: hub name or folder.
        arguments: of the engines, with `max_num_seqs`.
        batch_size: rows of an isolated batch: one engine, which gets one batch at a time. None:
            several engines, and the batches of the settings.
    """
    from ray.data.llm import vLLMEngineProcessorConfig

    bundle = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    # Twice the sequences that an engine holds, so that it never waits for the next batch.
    full = -(-2 * arguments["max_num_seqs"] // settings.batch_size)
    batches = 1 if batch_size else max(2, full)
    workers = (1, 1) if batch_size else worker_range(f"{stage}.workers", settings.workers)
    return vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=arguments,
        batch_size=batch_size or settings.batch_size,
        concurrency=workers,
        max_concurrent_batches=batches,
        # A pool grows only if its queue is longer than what its engines work on.
        max_tasks_in_flight_per_actor=batches if batch_size else QUEUED * batches,
        placement_group_config={"bundle_per_worker": bundle},
        accelerator_type=settings.accelerator_type,
        runtime_env={"env_vars": engine_env(settings.gpus)},
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
