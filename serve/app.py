"""Builds the application, for `serve/config.yaml` or the command line.

serve run serve.app:build_app workspace=W model=ampere
"""

from dataclasses import replace

from pydantic import BaseModel
from ray.serve import Application

from ampere.config.systems import named_settings
from ampere.models.model_folder import embedding_name
from ampere.store.indexes import serving_meta
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from serve.embedder import EmbedderDeployment
from serve.gateway import Gateway
from serve.searcher import SearcherDeployment


class SearchArgs(BaseModel):
    """Arguments of the application: the fields of `ServeSettings`; None: the preset's value.

    Attributes:
        workspace: folder or URI that every node can reach.
        revision: any text; change it so that `serve deploy` restarts the application, for example
            after a training.
        model: a model of the workspace that has an index.
    """

    workspace: str
    revision: str = ""
    model: str | None = None
    max_upload_mb: int | None = None
    embedder_replicas: int | None = None
    searcher_replicas: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    origins: tuple[str, ...] | None = None


def build_app(args: SearchArgs) -> Application:
    """The application for one workspace and one model.

    Raises:
        FileNotFoundError: no such workspace or model, or no index of its weights.
    """
    workspace = Workspace.open(args.workspace)
    preset = named_settings(workspace.preset)
    settings = replace(
        preset.serve, **args.model_dump(exclude={"workspace", "revision"}, exclude_none=True)
    )
    name = embedding_name(model_folder(workspace, settings.model))
    meta = serving_meta(workspace, settings.model)
    decode = last_settings(workspace, "decode", preset.decode)
    # Type checkers do not see that serve.deployment turns the class into a Deployment.
    embedder = EmbedderDeployment.options(  # type: ignore[attr-defined]
        num_replicas=settings.embedder_replicas,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    ).bind(workspace.uri, settings.model, name, decode, "cuda" if settings.gpus else "cpu")
    # The searchers and the gateway mostly wait: with whole cores they would starve the embedder on
    # a small machine.
    searchers = [
        SearcherDeployment.options(  # type: ignore[attr-defined]
            name=f"searcher-{shard}",
            num_replicas=settings.searcher_replicas,
            ray_actor_options={"num_cpus": 0.2},
        ).bind(workspace.uri, name, shard, meta["shards"])
        for shard in range(meta["shards"])
    ]
    gateway = Gateway.options(ray_actor_options={"num_cpus": 0.1})  # type: ignore[attr-defined]
    about = {"model": name, "index": meta}
    return gateway.bind(
        embedder, searchers, workspace.uri, settings.max_upload_mb, about, settings.origins
    )
