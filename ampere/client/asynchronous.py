"""The client for asyncio. Its methods are those of the blocking client, to be awaited."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from ampere.client import calls
from ampere.client.answers import Embedding, SearchAnswer, StoredItem
from ampere.client.batches import LINES, MAX_SAMPLES, NDJSON, Chunk, Collector
from ampere.client.calls import Call
from ampere.client.connection import FAILED, URL, Connection, as_method, is_success
from ampere.client.errors import ApiError, response_error
from ampere.client.queries import NewSample, Query, Search, to_json_with_files
from ampere.client.retries import Retries

P = ParamSpec("P")
T = TypeVar("T")


def awaitable(
    build: Callable[P, Call[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """A method that makes a call and awaits its answer."""

    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    as_method(method, build)
    return method


class AsyncClient:
    """A client of the endpoint for asyncio; see `Client`. Files are read in threads.

    Tasks may share it. More of them than httpx has connections wait for their turn.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connection = Connection(url, api_key, timeout_s, retries, clock, jitter)
        self._http = httpx.AsyncClient(transport=transport, **self._connection.options)
        self._sleep = sleep

    search = awaitable(calls.search)
    embed = awaitable(calls.embed)
    moment = awaitable(calls.moment)
    facets = awaitable(calls.facets)
    put_sample = awaitable(calls.put_sample)
    delete_sample = awaitable(calls.delete_sample)
    sample = awaitable(calls.sample)
    frames = awaitable(calls.frames)
    frame = awaitable(calls.frame)
    media = awaitable(calls.media)
    index = awaitable(calls.index)
    publish = awaitable(calls.publish)
    rollback = awaitable(calls.rollback)
    coverage = awaitable(calls.coverage)
    failures = awaitable(calls.failures)
    judge = awaitable(calls.judge)
    withdraw = awaitable(calls.withdraw)
    judgments = awaitable(calls.judgments)

    def search_batch(
        self, queries: Iterable[Search], lines: int = LINES
    ) -> AsyncIterator[SearchAnswer | ApiError]:
        """Search for many queries; see `Client.search_batch`."""
        return self._batch("/v1/search/batch", in_chunks(queries, Search, lines), SearchAnswer)

    def embed_batch(
        self, queries: Iterable[Query], lines: int = LINES
    ) -> AsyncIterator[Embedding | ApiError]:
        """Embed many queries; see `Client.embed_batch`."""
        return self._batch("/v1/embed/batch", in_chunks(queries, Query, lines), Embedding)

    async def put_samples(self, samples: Iterable[NewSample]) -> list[StoredItem]:
        """Insert or replace samples; see `Client.put_samples`."""
        items: list[StoredItem] = []
        async for chunk in in_chunks(samples, NewSample, MAX_SAMPLES):
            stored = await self.send(calls.put_chunk(chunk))
            items += stored
        return items

    async def ready(self) -> bool:
        """Whether the endpoint can answer queries now."""
        return await self._probe("/readyz")

    async def health(self) -> bool:
        """Whether the endpoint's process runs."""
        return await self._probe("/healthz")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, call: Call[T]) -> T:
        """Send a call until it has an answer; see `Client.send`."""
        if call.files:
            request = await asyncio.to_thread(call.request, self._http)
        else:
            request = call.request(self._http)
        attempts = self._connection.attempts(is_idempotent=call.is_idempotent)
        while True:
            try:
                response = await self._http.send(request)
                return call.answer(response, may_be_done=attempts.may_be_done)
            except FAILED as error:
                failure = error
            if (wait := attempts.wait_after(failure)) is None:
                raise self._connection.final(failure, attempts.failed)
            await self._sleep(wait)

    async def _batch(
        self, path: str, chunks: AsyncIterator[list[bytes]], kind: type[T]
    ) -> AsyncIterator[T | ApiError]:
        async for lines in chunks:
            async for outcome in self._chunk(path, Chunk(lines, kind)):
                yield outcome

    async def _chunk(self, path: str, chunk: Chunk[T]) -> AsyncIterator[T | ApiError]:
        attempts = self._connection.attempts()
        while True:
            sent = self._http.stream("POST", path, content=chunk.begin(), headers=NDJSON)
            try:
                async with sent as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise response_error(response)
                    async for data in response.aiter_bytes():
                        for outcome in chunk.take(data):
                            yield outcome
                for outcome in chunk.take(b"\n"):
                    yield outcome
                chunk.check_end()
                return
            except FAILED as error:
                failure = error
            if chunk.has_progressed:
                attempts.restart()
            if (wait := attempts.wait_after(failure)) is None:
                final = self._connection.final(failure, attempts.failed)
                for outcome in chunk.give_up(final):
                    yield outcome
                return
            await self._sleep(wait)

    async def _probe(self, path: str) -> bool:
        try:
            return is_success(await self._http.get(path))
        except httpx.TransportError:
            return False


async def in_chunks(
    given: Iterable[Mapping[str, Any]], kind: Any, most: int
) -> AsyncIterator[list[bytes]]:
    """Yield the lines of each request; see `ampere.client.batches.in_chunks`."""
    collector = Collector(most)
    for one in given:
        if one.get("file") is None:
            line = to_json_with_files(one, kind)
        else:
            line = await asyncio.to_thread(to_json_with_files, one, kind)
        for lines in collector.add(line):
            yield lines
    for lines in collector.rest():
        yield lines
