"""Builds the application, for `serve/config.yaml` or the command line.

serve run serve.app:build_app workspace=W model=ampere
"""

import dataclasses
from typing import Any

from pydantic import BaseModel
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from ampere.config.serve import ServeSettings
from ampere.config.systems import named_settings
from ampere.huge_pages import INDEX_ENV
from ampere.store.serving import served_model
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from serve.embedder import EmbedderDeployment
from serve.engine_apps import EngineApps, engine_deployments
from serve.gateway import Gateway
from serve.searcher import SearcherDeployment

GATEWAY_CPUS = 0.5
INDEX_CPUS = 0.2  # to search one: it mostly waits, and a whole core would starve the embedder
HOLDS_INDEX = {"env_vars": INDEX_ENV}


class SearchArgs(BaseModel):
    """Arguments of the application: the fields of `ServeSettings`; None: the preset's value.

    Host and port are those of Serve itself.

    Attributes:
        workspace: folder or URI that every node can reach.
        requires_keys: whether each request needs an API key; false only where the address that
            Serve listens on is loopback.
        revision: any text; change it so that `serve deploy` restarts the application, for example
            after a change of these arguments' defaults.
        model: a model of the workspace that has an index.
    """

    model_config = {"extra": "forbid"}

    workspace: str
    requires_keys: bool = True
    revision: str = ""
    model: str | None = None
    also: tuple[str, ...] | None = None
    gateway_replicas: int | None = None
    embedder_replicas: int | None = None
    max_embedder_replicas: int | None = None
    searcher_replicas: int | None = None
    max_searcher_replicas: int | None = None
    hit_memory_gb: float | None = None
    cpus: float | None = None
    gpus: float | None = None
    decoders: int | None = None
    max_batch: int | None = None
    max_concurrent: int | None = None
    max_per_client: int | None = None
    max_upload_mb: int | None = None
    request_timeout_s: float | None = None
    cached_queries: int | None = None
    stores: tuple[str, ...] | None = None
    private_hosts: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None
    transcriber: bool | None = None
    summarizer: bool | None = None
    engine_timeout_s: float | None = None


def build_app(args: SearchArgs) -> Application:
    """The application for one workspace.

    Raises:
        FileNotFoundError: no such workspace or model, or no index of its weights.
        ValueError: an engine is on that cannot run; see `engine_deployments`.
    """
    workspace = Workspace.open(args.workspace)
    preset = named_settings(workspace.preset)
    given = args.model_dump(exclude={"workspace", "revision", "requires_keys"}, exclude_none=True)
    settings = dataclasses.replace(preset.serve, **given)
    engines = engine_deployments(workspace, settings)
    return bind_app(workspace, settings, engines, requires_keys=args.requires_keys)


def bind_app(
    workspace: Workspace, settings: ServeSettings, engines: EngineApps, *, requires_keys: bool
) -> Application:
    """The application for one workspace.

    Args:
        workspace: what is searched.
        settings: of the endpoint.
        engines: behind queries.
        requires_keys: whether each request needs an API key.

    Raises:
        FileNotFoundError: no such model, or no index of its weights.
    """
    decode = last_settings(workspace, "decode", named_settings(workspace.preset).decode)
    deployments = {}
    for model in settings.models:
        served_model(workspace, model)  # for the error, before anything starts
        deployments[model] = (
            embedder(workspace, model, settings),
            searcher(workspace, model, settings) if settings.searcher_replicas else None,
        )
    # Type checkers do not see that serve.deployment turns the class into a Deployment.
    gateway = Gateway.options(  # type: ignore[attr-defined]
        num_replicas=settings.gateway_replicas,
        ray_actor_options={"num_cpus": gateway_cpus(settings), "runtime_env": HOLDS_INDEX},
    )
    return gateway.bind(
        workspace.uri,
        settings,
        decode,
        deployments,
        (engines.transcriber, engines.summarizer),
        requires_keys,
    )


@dataclasses.dataclass(frozen=True)
class Reserved:
    """What all replicas reserve together at the start."""

    cpus: float
    gpus: float


def reserved_resources(settings: ServeSettings, engines: EngineApps) -> Reserved:
    """The CPU cores and GPUs that an endpoint reserves at its start."""
    embedders = len(settings.models) * settings.embedder_replicas
    searchers = len(settings.models) * settings.searcher_replicas
    cpus = embedders * settings.cpus + searchers * INDEX_CPUS
    cpus += settings.gateway_replicas * gateway_cpus(settings) + engines.cpus
    return Reserved(cpus, embedders * settings.gpus + engines.gpus)


def gateway_cpus(settings: ServeSettings) -> float:
    """The CPU cores that a gateway replica reserves, with the indexes that it holds."""
    held = 0 if settings.searcher_replicas else len(settings.models)
    return GATEWAY_CPUS + held * INDEX_CPUS


def embedder(workspace: Workspace, model: str, settings: ServeSettings) -> Application:
    """The deployment that embeds queries with a model."""
    device = "cuda" if settings.gpus else "cpu"
    return EmbedderDeployment.options(  # type: ignore[attr-defined]
        name=f"embedder-{model}",
        **replicas(settings.embedder_replicas, settings.max_embedder_replicas, settings),
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    ).bind(workspace.uri, model, device, settings.max_batch)


def searcher(workspace: Workspace, model: str, settings: ServeSettings) -> Application:
    """The deployment that searches the index of a model."""
    return SearcherDeployment.options(  # type: ignore[attr-defined]
        name=f"searcher-{model}",
        **replicas(settings.searcher_replicas, settings.max_searcher_replicas, settings),
        ray_actor_options={"num_cpus": INDEX_CPUS, "runtime_env": HOLDS_INDEX},
    ).bind(workspace.uri, model, settings.hit_memory_gb)


def replicas(least: int, most: int, settings: ServeSettings) -> dict[str, Any]:
    """Options of a deployment with a fixed number of replicas, or with one that follows the load.

    Args:
        least: number of replicas.
        most: number under load; 0: always `least`.
        settings: of the endpoint.
    """
    if most <= least:
        return {"num_replicas": least}
    # The gateways admit `admitted` queries at most. With a target above a replica's share of them,
    # Serve would never add replicas up to `most`.
    admitted = settings.gateway_replicas * settings.max_concurrent
    target = max(1, min(settings.max_batch, admitted // most))
    scaling = AutoscalingConfig(
        min_replicas=least, max_replicas=most, target_ongoing_requests=target
    )
    return {"autoscaling_config": scaling}
