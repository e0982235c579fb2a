"""The deployments of the engines behind queries, as the settings of the workspace's stages say."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ray.serve import Application

from ampere.config.serve import ServeSettings
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.store.names import ALL, names_by_group
from ampere.store.settings import last_settings, settings_report
from ampere.store.workspace import Workspace
from ampere.text.language_models import check_quantization, language_model
from ampere.text.speech_engines.checks import check_engine
from ampere.text.speech_engines.vllm_speech import engine_arguments
from ampere.text.vllm_env import engine_env
from serve.summarizer import SummarizerDeployment
from serve.transcriber import TranscriberDeployment

# A model loads for minutes, during which Serve asks whether its replica lives; the replicas of
# `serve.app` share one thread with Serve.
OWN_THREAD = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1"}
# Engines wait most of the time. With whole cores reserved for them, an endpoint with all its
# deployments would not start on a small machine.
RESERVED_SHARE = 0.2  # of the cores that an engine computes on
# Clips at once in a replica with faster-whisper: one is read while another is heard.
WHISPER_ONGOING = 2


@dataclass(frozen=True, kw_only=True)
class EngineApps:
    """The engines to bind; None: off.

    Attributes:
        cpus, gpus: what their replicas reserve together.
    """

    transcriber: Application | None = None
    summarizer: Application | None = None
    cpus: float = 0.0
    gpus: float = 0.0


def engine_deployments(workspace: Workspace, settings: ServeSettings) -> EngineApps:
    """The engines that the settings turn on, each with the settings of its stage's last run.

    Raises:
        ValueError: a stage never ran, or its engine is not installed here.
        FileNotFoundError: a model is a path, and there is nothing at it.
    """
    cpus = gpus = 0.0
    transcriber = summarizer = None
    if settings.transcriber:
        require_run(workspace, "transcribe", "serve.transcriber")
        transcribe = last_settings(workspace, "transcribe", TranscribeSettings())
        transcriber = transcriber_app(workspace, transcribe, settings.engine_timeout_s)
        cpus += RESERVED_SHARE * transcribe.cpus
        gpus += transcribe.gpus
    if settings.summarizer:
        require_run(workspace, "summarize", "serve.summarizer")
        summarize = last_settings(workspace, "summarize", SummarizeSettings())
        summarizer = summarizer_app(summarize)
        cpus += RESERVED_SHARE * summarize.cpus
        gpus += summarizer_gpus(summarize)
    return EngineApps(transcriber=transcriber, summarizer=summarizer, cpus=cpus, gpus=gpus)


def require_run(workspace: Workspace, stage: str, setting: str) -> None:
    """Raise ValueError if a workspace does not have the settings of a stage."""
    if workspace.read_report(settings_report(stage)) is None:
        raise ValueError(
            f"{setting} is on, but `ampere {stage}` never ran in {workspace.uri}, so its model is "
            f"unknown. Run it first, or turn {setting} off"
        )


def require_vllm(setting: str) -> None:
    """Raise ValueError if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ValueError(
            f"{setting} is on, but vLLM is not installed. Install requirements/cpu.txt or "
            f"requirements/gpu.txt, or turn {setting} off"
        )


def transcriber_app(
    workspace: Workspace, settings: TranscribeSettings, timeout_s: float
) -> Application:
    """The transcriber of some settings.

    Args:
        workspace: with the pages whose titles a clip of any group may name.
        settings: of the stage.
        timeout_s: after which nobody waits for a clip any more.
    """
    check_engine(settings)
    ongoing = WHISPER_ONGOING
    if settings.engine == "vllm":
        require_vllm("serve.transcriber")
        ongoing = engine_arguments(settings)["max_num_seqs"]
    # A query belongs to no group of the catalog, so only the names of all pages can be expected.
    names = names_by_group(workspace, settings).get("", "") if settings.names_by == ALL else ""
    # Type checkers do not see that serve.deployment turns the class into a Deployment.
    return TranscriberDeployment.options(  # type: ignore[attr-defined]
        max_ongoing_requests=ongoing,
        ray_actor_options=actor_options(settings, settings.gpus),
    ).bind(settings, names, timeout_s)


def summarizer_app(settings: SummarizeSettings) -> Application:
    """The summarizer of some settings."""
    require_vllm("serve.summarizer")
    model, _ = language_model(settings)
    if model.quantization is not None:
        check_quantization(model.quantization)
    return SummarizerDeployment.options(  # type: ignore[attr-defined]
        ray_actor_options=actor_options(settings, summarizer_gpus(settings)),
    ).bind(settings)


def actor_options(settings: TranscribeSettings | SummarizeSettings, gpus: float) -> dict[str, Any]:
    """Resources and environment of a replica."""
    threads = {"OMP_NUM_THREADS": str(max(1, int(settings.cpus)))}  # as Ray sets it for a stage
    return {
        "num_cpus": RESERVED_SHARE * settings.cpus,
        "num_gpus": gpus,
        "accelerator_type": settings.accelerator_type,
        "runtime_env": {"env_vars": OWN_THREAD | threads | engine_env(settings.gpus)},
    }


def summarizer_gpus(settings: SummarizeSettings) -> float:
    """GPUs of an engine."""
    return settings.gpus * settings.tensor_parallel_size
