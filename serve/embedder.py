"""The embedding deployment: turns media and text into vectors, several requests per batch."""

import asyncio
import dataclasses
import logging
from dataclasses import dataclass

from ray import serve

from ampere.config.decode import DecodeSettings
from ampere.huge_pages import use_huge_pages
from ampere.media.decoder import MediaError
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.records import Domain
from ampere.store.models import load_embedder

MAX_BATCH = 16
BATCH_WAIT_S = 0.005
DECODE_LIMIT_S = 10.0  # for one upload, since the uploads of its batch wait
logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


@dataclass(frozen=True)
class Query:
    """What a request searches by.

    Attributes:
        media: a picture or video file; None: there is only text.
        text: its title or product summary; None: it has none.
        domain: None: a picture is a page and a video a short.
    """

    media: bytes | None
    text: str | None
    domain: Domain | None = None


@dataclass(frozen=True)
class Embedded:
    """The result for a query.

    Attributes:
        vector: its float32 values; None if it failed.
        error: why it failed.
        status: HTTP status of a failure: 422 for a bad upload, 500 for an error of the server.
    """

    vector: list[float] | None
    error: str | None = None
    status: int = 422


# Position in the batch -> query and its frames; None: it has none.
Decoded = dict[int, tuple[Query, list[bytes] | None]]


def server_error(error: Exception) -> Embedded:
    """The result for a query that failed through no fault of its own; logs the traceback.

    The answer has the type alone: messages may have the server's paths.
    """
    logger.error("a query failed", exc_info=error)
    return Embedded(None, f"{type(error).__name__} on the server; see its log", status=500)


@serve.deployment(max_ongoing_requests=2 * MAX_BATCH, graceful_shutdown_timeout_s=10)
class EmbedderDeployment:
    """Holds one model and embeds concurrent requests in batches.

    Args:
        workspace: its URI.
        model: name of a model of the workspace.
        name: of the model with the weights that the endpoint started with, as `embedding_name`; its
            index holds their vectors.
        decode: how the workspace's media were decoded.
        device: torch device of the model.

    Raises:
        ValueError: the weights changed since the endpoint started.
    """

    def __init__(
        self, workspace: str, model: str, name: str, decode: DecodeSettings, device: str
    ) -> None:
        use_huge_pages()
        self.embedder = load_embedder(workspace, model, name, device)
        self.decode = dataclasses.replace(decode, num_frames=self.embedder.model.num_frames)
        self.process = IsolatedProcess(
            min(decode.time_limit_s, DECODE_LIMIT_S), decode.memory_limit_gb
        )

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def embed(self, queries: list[Query]) -> list[Embedded]:
        """Embed a batch; Serve collects it from calls with one query each."""
        return await asyncio.to_thread(self._embed, queries)

    def _embed(self, queries: list[Query]) -> list[Embedded]:
        """Each query's vector or error; a failed query does not affect the others."""
        frames: dict[int, list[bytes] | None] = {}
        results: dict[int, Embedded] = {}
        for at, query in enumerate(queries):
            try:
                frames[at] = self._frames(query)
            except MediaError as error:
                results[at] = Embedded(None, str(error))
            except Exception as error:
                results[at] = server_error(error)
        results |= self._vectors({at: (queries[at], jpegs) for at, jpegs in frames.items()})
        return [results[at] for at in range(len(queries))]

    def _vectors(self, decoded: Decoded) -> dict[int, Embedded]:
        """Embed all queries in one batch; one by one if that fails."""
        if not decoded:
            return {}
        queries, frames = zip(*decoded.values(), strict=True)
        try:
            domains = [
                query.domain or (query_domain(jpegs) if jpegs else Domain.PAGE)
                for query, jpegs in decoded.values()
            ]
            vectors = self.embedder.embed(list(frames), [query.text for query in queries], domains)
        except Exception as error:
            if len(decoded) == 1:
                return dict.fromkeys(decoded, server_error(error))
            return {at: self._vectors({at: one})[at] for at, one in decoded.items()}
        return {at: Embedded(vector.tolist()) for at, vector in zip(decoded, vectors, strict=True)}

    def _frames(self, query: Query) -> list[bytes] | None:
        """Decode an upload in an isolated process, which a hostile file cannot harm."""
        if query.media is None:
            return None
        return self.process.call(query_frames, query.media, self.decode, query.domain)

    def model_name(self) -> str:
        """The model with its weights, as `embedding_name`."""
        return self.embedder.name
