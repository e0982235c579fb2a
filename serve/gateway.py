"""The gateway deployment: answers over HTTP, and searches with the vectors of the embedders."""

import gc
import logging

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from ampere.config.decode import DecodeSettings
from ampere.config.serve import ServeSettings
from ampere.store.workspace import Workspace
from serve.api.build import build_api
from serve.backend import Backend, LocalHandle, ServedPair
from serve.engines import engines_behind
from serve.served_index import ServedIndex
from serve.services import Services

# Requests of all kinds at a time. Those that decode, embed or search have fewer places, so that
# probes and the page answer while the endpoint is busy; see `serve.guards.admission`.
ONGOING = 1000


@serve.deployment(max_ongoing_requests=ONGOING, graceful_shutdown_timeout_s=10)
@serve.ingress()
class Gateway:
    """The ingress deployment.

    Args:
        workspace: its URI.
        settings: of the endpoint.
        decode: how the workspace's media were decoded.
        deployments: model -> its embedder and searcher; without a searcher, the replica holds the
            index.
        engines: the transcriber and the summarizer; None: there is none.
        requires_keys: whether each request needs an API key.
    """

    def __init__(
        self,
        workspace: str,
        settings: ServeSettings,
        decode: DecodeSettings,
        deployments: dict[str, tuple[DeploymentHandle, DeploymentHandle | None]],
        engines: tuple[DeploymentHandle | None, DeploymentHandle | None],
        requires_keys: bool,
    ) -> None:
        opened = Workspace.open(workspace)

        def index(model: str) -> LocalHandle:
            return LocalHandle(ServedIndex(workspace, model, settings.hit_memory_gb))

        pairs = {
            model: ServedPair(opened, model, embedder, searcher or index(model))
            for model, (embedder, searcher) in deployments.items()
        }
        self.services = Services(
            opened,
            settings,
            decode,
            Backend(pairs),
            engines_behind(*engines, settings.engine_timeout_s),
            replica=serve.get_replica_context().replica_id.unique_id,
            requires_keys=requires_keys,
        )
        logging.getLogger("python_multipart").setLevel(logging.WARNING)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application; Serve calls this in each replica."""
        await self.services.pool.warm_up()
        api = build_api(self.services)
        # What is loaded now stays. To look for garbage in it would stop all requests for 0.1 s.
        gc.collect()
        gc.freeze()
        return api

    async def drain(self) -> None:
        """Refuse further requests, and return when those in progress have their answers."""
        await self.services.drain()

    def __del__(self) -> None:
        if hasattr(self, "services"):
            self.services.close()
