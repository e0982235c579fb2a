"""From a query to its answer: read the file, embed the parts, search."""

import hashlib
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import MediaError
from ampere.media.query import query_domain, query_sample
from ampere.media.sample_frames import StoredFrames
from ampere.records import Domain
from ampere.retrieval.query_vector import embeddings_needed
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer
from ampere.store.serving import ServedModel
from serve.backend import Backend, ServedPair
from serve.decode_pool import DecodePool
from serve.embedder import EmbedItem
from serve.messages import Message
from serve.problems import Problem
from serve.query_cache import Embedded, QueryCache
from serve.schemas import QueryBody, SearchBody
from serve.served_index import SearchCall
from serve.stores import Stores


@dataclass
class Query:
    """A query with its files, and the results of the steps so far.

    Attributes:
        files: a picture or clip, or pictures in the order of time; empty: there is no file.
        text: words, or what the speech of the clip was understood as.
        notes: what a client should know of the answer.
        steps_ms: step -> time.
    """

    body: QueryBody
    files: list[bytes]
    text: str | None
    transcript: str | None = None
    notes: list[Message] = field(default_factory=list)
    steps_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The answer to a search.

    Attributes:
        name: of the model with its weights.
        domain: that the query was embedded as.
    """

    answer: SearchAnswer
    name: str
    domain: Domain
    parts: tuple[str, ...]


class Queries:
    """Answers queries with the deployments behind a gateway.

    Args:
        backend: the models.
        pool: decodes files.
        cache: of vectors.
        stores: that files may be named of.
        decode: how the workspace's media were decoded.
    """

    def __init__(
        self,
        backend: Backend,
        pool: DecodePool,
        cache: QueryCache,
        stores: Stores,
        decode: DecodeSettings,
    ) -> None:
        self.backend, self.pool, self.cache = backend, pool, cache
        self.stores, self.decode = stores, decode

    async def read(self, body: QueryBody, files: list[bytes]) -> Query:
        """A query with the file that it names by URI.

        Raises:
            Problem: a file is too large, or the one at `media_uri` cannot be read.
        """
        if body.media_uri is not None:
            if files:
                raise Problem(422, "file.twice")
            files = [await self.stores.fetch(body.media_uri)]
        limit = self.stores.max_bytes
        for file in files:
            if len(file) > limit:
                raise Problem(413, "file.large", size=len(file), limit=limit)
        return Query(body, files, body.text)

    async def search(self, body: SearchBody, query: Query) -> Found:
        """The hits of a search.

        Raises:
            Problem: the query cannot be read, or a field does not fit the table.
        """
        pair = self.backend.pair(body.model)
        request = search_request(body, query)
        return await pair.with_same_weights(partial(self._search, pair, request, query))

    async def _search(
        self, pair: ServedPair, request: SearchRequest, query: Query, served: ServedModel
    ) -> Found:
        if request.mode is None and request.parts == ("words",) and not served.reads_text:
            request = replace(request, mode="lexical")
        embedded = await self.embed(pair, served, request, query)
        start = time.perf_counter()
        answer = await pair.search(SearchCall(served.name, without_files(request), embedded))
        query.steps_ms["search"] = 1e3 * (time.perf_counter() - start)
        return Found(answer, served.name, embedded.domain, request.parts)

    async def vector(self, query: Query) -> tuple[NDArray[np.float32], ServedModel, Domain]:
        """The vector of a file, of words, or of both together: float32 [D]."""
        pair = self.backend.pair(query.body.model)
        request = search_request(SearchBody(), query)
        if set(request.parts) - {"file", "words"} or request.weights:
            raise Problem(422, "embed.parts")
        request = replace(request, mode="vector")

        async def ask(served: ServedModel) -> tuple[NDArray[np.float32], ServedModel, Domain]:
            embedded = await self.embed(pair, served, request, query)
            (vector,) = embedded.values()
            return vector, served, embedded.domain

        return await pair.with_same_weights(ask)

    async def embed(
        self, pair: ServedPair, served: ServedModel, request: SearchRequest, query: Query
    ) -> Embedded:
        """The vectors of a query's parts, as far as the search needs them; cached."""
        needed = embeddings_needed(request)
        if not served.reads_text and request.parts != ("words",):
            needed = tuple(part for part in needed if part != "words")
        if not needed or (request.ranking == "lexical" and not served.reads_text):
            return Embedded({}, request.domain or Domain.PAGE)
        key: Hashable = (served.name, needed, request.domain, request.text, hashes(query.files))
        if (known := self.cache.get(key)) is not None:
            return known
        start = time.perf_counter()
        frames = None
        if query.files:
            stored = await self.decoded(pair, served, query.files, request.domain)
            frames = stored.frames
        decoded = time.perf_counter()
        domain = request.domain or (query_domain(frames) if frames else Domain.PAGE)
        items = tuple(
            EmbedItem(
                None if part == "words" else frames,
                None if part == "file" else request.text,
                domain,
            )
            for part in needed
        )
        vectors = await pair.embed(served, items)
        query.steps_ms |= {
            "prepare": 1e3 * (decoded - start),
            "embed": 1e3 * (time.perf_counter() - decoded),
        }
        embedded = Embedded(dict(zip(needed, vectors, strict=True)), domain)
        self.cache.put(key, embedded)
        return embedded

    async def decoded(
        self, pair: ServedPair, served: ServedModel, files: Sequence[bytes], domain: Domain | None
    ) -> StoredFrames:
        """The frames of a file as the decode stage would store them.

        Raises:
            Problem: 422, it cannot be read.
        """
        decode = replace(self.decode, num_frames=await pair.frames(served))
        media = files[0] if len(files) == 1 else list(files)
        try:
            return await self.pool.call(query_sample, media, decode, domain)
        except MediaError as error:
            reason = str(error)
            where = [{"where": "file", "message": reason}]
            raise Problem(422, "file.unreadable", errors=where, reason=reason) from error


def search_request(body: SearchBody, query: Query) -> SearchRequest:
    """The request of a search.

    Raises:
        Problem: 422, the query is empty, or fields contradict each other.
    """
    own = query.body
    try:
        return SearchRequest(
            media=query.files[0] if len(query.files) == 1 else None,
            frames=tuple(query.files) if len(query.files) > 1 else (),
            text=query.text,
            sample_id=own.sample_id,
            vector=tuple(own.vector),
            weights={str(name): weight for name, weight in own.weights.items()},
            domain=own.domain,
            domains=tuple(dict.fromkeys(body.domains)),
            k=body.k,
            offset=body.offset,
            filter=body.filter,
            group_by=body.group_by,
            group_size=body.group_size,
            min_similarity=body.min_similarity,
            mode=body.mode,
            fusion_weights=body.fusion_weights,
            explain=body.explain,
            facets=tuple(dict.fromkeys(body.facets)),
        )
    except ValueError as error:
        raise Problem(422, "request.invalid", reason=str(error)) from error


def without_files(request: SearchRequest) -> SearchRequest:
    """The same request with an empty file in place of its own, which a search does not need."""
    if "file" not in request.parts:
        return request
    return replace(request, media=b"", frames=())


def hashes(files: Sequence[bytes]) -> tuple[str, ...]:
    """The SHA-256 of each file, in hexadecimal."""
    return tuple(hashlib.sha256(file).hexdigest() for file in files)
