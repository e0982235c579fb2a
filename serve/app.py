"""Builds the application: `serve run serve.app:build_app workspace=... model=ampere`, or serve/config.yaml."""

from pydantic import BaseModel
from ray.serve import Application

from ampere.config import PRESETS, ServeSettings
from ampere.models.saved import embedding_name
from ampere.pipeline.embed import model_folder
from ampere.pipeline.index import check_model, current_meta
from ampere.pipeline.status import last_settings
from ampere.workspace import Workspace
from serve.embedder import EmbedderDeployment
from serve.gateway import Gateway
from serve.searcher import SearcherDeployment


class SearchArgs(BaseModel):
    """Arguments of the application; defaults as in `ampere.config.ServeSettings`.

    Attributes:
        workspace: folder or URI that every node can reach.
        model: a model of the workspace that has an index.
    """

    workspace: str
    model: str = ServeSettings.model
    max_upload_mb: int = ServeSettings.max_upload_mb
    embedder_replicas: int = ServeSettings.embedder_replicas
    searcher_replicas: int = ServeSettings.searcher_replicas
    cpus: float = ServeSettings.cpus
    gpus: float = ServeSettings.gpus


def build_app(args: SearchArgs) -> Application:
    """The application over one workspace and one model.

    Raises:
        FileNotFoundError: no such workspace, or it has no such model or no index of it.
        ValueError: the index is of other weights than the model's.
    """
    workspace = Workspace.open(args.workspace)
    name = embedding_name(model_folder(workspace, args.model))
    meta = current_meta(workspace, args.model)
    check_model(meta, name)
    decode = last_settings(workspace, "decode", PRESETS[workspace.preset]().decode)
    # serve.deployment makes a Deployment of the class, which type checkers do not see.
    embedder = EmbedderDeployment.options(  # type: ignore[attr-defined]
        num_replicas=args.embedder_replicas,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
    ).bind(workspace.uri, args.model, name, decode, "cuda" if args.gpus else "cpu")
    # The searcher and the gateway mostly wait; whole cores for them would starve the embedder on a small machine.
    searchers = [
        SearcherDeployment.options(  # type: ignore[attr-defined]
            name=f"searcher-{shard}", num_replicas=args.searcher_replicas, ray_actor_options={"num_cpus": 0.2}
        ).bind(workspace.uri, args.model, name, shard, meta["shards"])
        for shard in range(meta["shards"])
    ]
    gateway = Gateway.options(ray_actor_options={"num_cpus": 0.1})  # type: ignore[attr-defined]
    return gateway.bind(embedder, searchers, workspace.uri, args.max_upload_mb)
