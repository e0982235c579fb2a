"""The embedding deployment: turns frames and texts into vectors, several requests per batch."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from ampere.huge_pages import use_huge_pages
from ampere.records import Domain
from ampere.store.serving import ServedModel, served_folder
from ampere.store.workspace import Workspace
from serve.batcher import Batcher
from serve.weights import FollowedModel, UnknownWeights

if TYPE_CHECKING:
    from ampere.models.embedder import Embedder

logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


@dataclass(frozen=True)
class EmbedItem:
    """One sample to embed.

    Attributes:
        frames: JPEGs, 1 or `num_frames`; None: words alone.
        text: None: frames alone.
    """

    frames: list[bytes] | None
    text: str | None
    domain: Domain


@dataclass(frozen=True)
class Refused:
    """The answer to a request that cannot be fulfilled.

    Attributes:
        detail: why, and what to do.
        status: HTTP status: 422 for a bad request, 500 for an error of the server.
    """

    detail: str
    status: int = 422


@dataclass(frozen=True)
class EmbedCall:
    """The items of one request, which one batch embeds.

    Attributes:
        name: of the model with its weights.
    """

    name: str
    items: tuple[EmbedItem, ...]


Vectors = NDArray[np.float32]
EmbedResult = Vectors | Refused | UnknownWeights


@serve.deployment(max_ongoing_requests=64, graceful_shutdown_timeout_s=10)
class EmbedderDeployment:
    """Holds one model and embeds concurrent requests in batches.

    A batch starts as soon as the previous one ends, with all requests that arrived in between. A
    single request does not wait, and batches grow with the load.

    Args:
        workspace: its URI.
        model: name of a model of the workspace.
        device: torch device of the model.
        max_batch: calls that are embedded at once.
    """

    def __init__(self, workspace: str, model: str, device: str, max_batch: int) -> None:
        use_huge_pages()
        opened = Workspace.open(workspace)

        def load(served: ServedModel) -> "Embedder":
            from ampere.models.embedder import Embedder  # imports torch and transformers: seconds

            embedder = Embedder(served_folder(opened, served.name), device)
            embedder.warm_up()
            return embedder

        self.models = FollowedModel(opened, model, load)
        self.batcher = Batcher(self._embed, max_batch)
        self._following = asyncio.ensure_future(self.models.follow())

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """The vectors of a call's items, float32 [items, D], or why there are none."""
        return await self.batcher(call)

    async def number_of_frames(self, name: str) -> int | UnknownWeights:
        """Frames of a clip that the model reads."""
        embedder = self.models.get(name)
        return embedder if isinstance(embedder, UnknownWeights) else embedder.model.num_frames

    def _embed(self, calls: Sequence[EmbedCall]) -> list[EmbedResult]:
        """The vectors of each call; one that fails does not affect the others."""
        results: dict[int, EmbedResult] = {}
        by_name: dict[str, list[int]] = {}
        for at, call in enumerate(calls):
            by_name.setdefault(call.name, []).append(at)
        for name, places in by_name.items():
            embedder = self.models.get(name)
            if isinstance(embedder, UnknownWeights):
                results |= dict.fromkeys(places, embedder)
                continue
            found = embed_calls(embedder, [calls[at] for at in places])
            results |= dict(zip(places, found, strict=True))
        return [results[at] for at in range(len(calls))]


def embed_calls(embedder: Any, calls: Sequence[EmbedCall]) -> list[EmbedResult]:
    """Embed the items of all calls at once; call by call if that fails."""
    items = [item for call in calls for item in call.items]
    try:
        vectors = embedder.embed(
            [item.frames for item in items],
            [item.text for item in items],
            [item.domain for item in items],
        )
    except Exception as error:
        if len(calls) > 1:
            return [embed_calls(embedder, [call])[0] for call in calls]
        if isinstance(error, ValueError):  # the model cannot embed words alone
            return [Refused(str(error))]
        logger.error("a query failed", exc_info=error)
        return [Refused(f"{type(error).__name__} on the server; see its log", 500)]
    ends = np.cumsum([len(call.items) for call in calls])
    return list(np.split(vectors, ends[:-1]))
