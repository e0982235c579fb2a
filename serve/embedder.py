"""The embedding deployment: media bytes and text to vectors, several requests in one pass of the network."""

import asyncio
import dataclasses
from dataclasses import dataclass

from ray import serve

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import MediaError
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.records import Domain
from ampere.store.models import own_embedder

MAX_BATCH = 16
BATCH_WAIT_S = 0.005
DECODE_LIMIT_S = 10.0  # of one upload; those behind it wait


@dataclass(frozen=True)
class Query:
    """What someone searches by: a picture or video file, its text or None, its domain or None where it is not told."""

    media: bytes
    text: str | None
    domain: Domain | None = None


@dataclass(frozen=True)
class Embedded:
    """The vector of a query as float32 list, or why there is none, and the HTTP status that says whose fault it is."""

    vector: list[float] | None
    error: str | None = None
    status: int = 422


Decoded = dict[int, tuple[Query, list[bytes]]]  # place in the batch -> query and its frames


def broken(error: Exception) -> Embedded:
    """The answer to a query that an error of ours stopped."""
    return Embedded(None, f"{type(error).__name__}: {error}", status=500)


@serve.deployment(max_ongoing_requests=2 * MAX_BATCH)
class EmbedderDeployment:
    """Holds one model; requests that arrive together are embedded together.

    Args:
        name: of the weights that the endpoint started with, and whose vectors its index holds.

    Raises:
        ValueError: the model was trained again since.
    """

    def __init__(
        self, workspace: str, model: str, name: str, decode: DecodeSettings, device: str
    ) -> None:
        self.embedder = own_embedder(workspace, model, name, device)
        self.decode = dataclasses.replace(decode, num_frames=self.embedder.model.num_frames)
        self.process = IsolatedProcess(
            min(decode.time_limit_s, DECODE_LIMIT_S), decode.memory_limit_gb
        )

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def embed(self, queries: list[Query]) -> list[Embedded]:
        return await asyncio.to_thread(self._embed, queries)

    def _embed(self, queries: list[Query]) -> list[Embedded]:
        """Each query's vector, or its error, which costs the others nothing."""
        frames: dict[int, list[bytes]] = {}
        results: dict[int, Embedded] = {}
        for at, query in enumerate(queries):
            try:
                frames[at] = self._frames(query)
            except MediaError as error:
                results[at] = Embedded(None, str(error))
            except Exception as error:
                results[at] = broken(error)
        results |= self._vectors({at: (queries[at], found) for at, found in frames.items()})
        return [results[at] for at in range(len(queries))]

    def _vectors(self, decoded: Decoded) -> dict[int, Embedded]:
        """Vectors of all at once; one by one if that fails."""
        if not decoded:
            return {}
        queries, frames = zip(*decoded.values(), strict=True)
        try:
            domains = [query.domain or query_domain(found) for query, found in decoded.values()]
            vectors = self.embedder.embed(list(frames), [query.text for query in queries], domains)
        except Exception as error:
            if len(decoded) == 1:
                return dict.fromkeys(decoded, broken(error))
            return {at: self._vectors({at: one})[at] for at, one in decoded.items()}
        return {at: Embedded(vector.tolist()) for at, vector in zip(decoded, vectors, strict=True)}

    def _frames(self, query: Query) -> list[bytes]:
        """Frames of an upload, decoded where a hostile one does no harm."""
        return self.process.call(query_frames, query.media, self.decode, query.domain)

    def model_name(self) -> str:
        return self.embedder.name
