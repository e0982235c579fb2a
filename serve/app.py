"""Builds the application: `serve run serve.app:build_app workspace=... model=ampere`, or serve/config.yaml."""

from dataclasses import replace

from pydantic import BaseModel
from ray.serve import Application

from ampere.config.presets import PRESETS
from ampere.models.model_folder import embedding_name
from ampere.store.indexes import check_model, current_meta
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from serve.embedder import EmbedderDeployment
from serve.gateway import Gateway
from serve.searcher import SearcherDeployment


class SearchArgs(BaseModel):
    """Arguments of the application: those of `ampere.config.ServeSettings`; None: as the workspace's preset has it.

    Attributes:
        workspace: folder or URI that every node can reach.
        model: a model of the workspace that has an index.
        revision: anything; `serve deploy` takes up a new index where it is another than before, and else does nothing.
    """

    workspace: str
    revision: str = ""
    model: str | None = None
    max_upload_mb: int | None = None
    embedder_replicas: int | None = None
    searcher_replicas: int | None = None
    cpus: float | None = None
    gpus: float | None = None


def build_app(args: SearchArgs) -> Application:
    """The application over one workspace and one model.

    Raises:
        FileNotFoundError: no such workspace, or it has no such model or no index of it.
        ValueError: the index is of other weights than the model's.
    """
    workspace = Workspace.open(args.workspace)
    preset = PRESETS[workspace.preset]()
    settings = replace(
        preset.serve, **args.model_dump(exclude={"workspace", "revision"}, exclude_none=True)
    )
    name = embedding_name(model_folder(workspace, settings.model))
    meta = current_meta(workspace, settings.model)
    check_model(meta, name)
    decode = last_settings(workspace, "decode", preset.decode)
    # serve.deployment makes a Deployment of the class, which type checkers do not see.
    embedder = EmbedderDeployment.options(  # type: ignore[attr-defined]
        num_replicas=settings.embedder_replicas,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    ).bind(workspace.uri, settings.model, name, decode, "cuda" if settings.gpus else "cpu")
    # The searcher and the gateway mostly wait; whole cores for them would starve the embedder on a small machine.
    searchers = [
        SearcherDeployment.options(  # type: ignore[attr-defined]
            name=f"searcher-{shard}",
            num_replicas=settings.searcher_replicas,
            ray_actor_options={"num_cpus": 0.2},
        ).bind(workspace.uri, settings.model, name, shard, meta["shards"])
        for shard in range(meta["shards"])
    ]
    gateway = Gateway.options(ray_actor_options={"num_cpus": 0.1})  # type: ignore[attr-defined]
    about = {"model": name, "index": meta}
    return gateway.bind(embedder, searchers, workspace.uri, settings.max_upload_mb, about)
