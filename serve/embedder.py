"""The embedding deployment: media bytes and text to vectors, several requests in one pass of the network."""

import asyncio
import dataclasses
from dataclasses import dataclass

from ray import serve

from ampere.config import DecodeSettings
from ampere.media.decoder import MediaError
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.models.embedder import Embedder
from ampere.pipeline.embed import own_model
from ampere.records import Domain

MAX_BATCH = 16
BATCH_WAIT_S = 0.005


@dataclass(frozen=True)
class Query:
    """What someone searches by: a picture or video file, its text or None, its domain or None where it is not told."""

    media: bytes
    text: str | None
    domain: Domain | None = None


@dataclass(frozen=True)
class Embedded:
    """The vector of a query as float32 list, or why there is none."""

    vector: list[float] | None
    error: str | None = None


@serve.deployment
class EmbedderDeployment:
    """Holds one model; requests that arrive together are embedded together.

    Args:
        name: of the weights that the endpoint started with, and whose vectors its index holds.

    Raises:
        ValueError: the model was trained again since.
    """

    def __init__(self, workspace: str, model: str, name: str, decode: DecodeSettings, device: str) -> None:
        self.embedder = Embedder(own_model(workspace, model, name), device)
        self.decode = dataclasses.replace(decode, num_frames=self.embedder.model.num_frames)
        self.process = IsolatedProcess(decode.time_limit_s, decode.memory_limit_gb)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def embed(self, queries: list[Query]) -> list[Embedded]:
        return await asyncio.to_thread(self._embed, queries)

    def _embed(self, queries: list[Query]) -> list[Embedded]:
        results: list[Embedded] = [Embedded(None)] * len(queries)
        good, frames = [], []
        for at, query in enumerate(queries):
            try:
                frames.append(self._frames(query.media))
                good.append(at)
            except MediaError as error:
                results[at] = Embedded(None, str(error))
        if good:
            domains = [queries[at].domain or query_domain(found) for at, found in zip(good, frames, strict=True)]
            vectors = self.embedder.embed(frames, [queries[at].text for at in good], domains)
            for at, vector in zip(good, vectors, strict=True):
                results[at] = Embedded(vector.tolist())
        return results

    def _frames(self, media: bytes) -> list[bytes]:
        """Frames of an upload, decoded where a hostile one does no harm."""
        return self.process.call(query_frames, media, self.decode)

    def model_name(self) -> str:
        return self.embedder.name
