"""The blocking client."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import httpx

from ampere.client import calls
from ampere.client.answers import Embedding, SearchAnswer, StoredItem
from ampere.client.batches import LINES, MAX_SAMPLES, NDJSON, Chunk, in_chunks
from ampere.client.calls import Call
from ampere.client.connection import FAILED, URL, Connection, as_method, is_success
from ampere.client.errors import ApiError, response_error
from ampere.client.queries import NewSample, Query, Search
from ampere.client.retries import Retries

P = ParamSpec("P")
T = TypeVar("T")


def blocking(build: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    """A method that makes a call and waits for its answer."""

    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    as_method(method, build)
    return method


class Client:
    """A client of the endpoint. Threads may share it.

    Requests that fail for lack of capacity or of a connection are sent again, with growing random
    waits. Two are not, once they may have been executed: `judge` and `rollback`.

    Args:
        url: of the endpoint.
        api_key: None: that of the environment variable AMPERE_API_KEY, if there is one.
        timeout_s: longest silence of the endpoint, in seconds.
        retries: which requests are sent again; None: as `Retries` has it.
        transport: of httpx; None: HTTP.
        sleep: waits for seconds.
        clock: a monotonic clock, in seconds.
        jitter: random numbers from 0 to 1.

    Raises:
        ValueError: the address is not an HTTP URL. Of a method: an argument is invalid.
        ApiError: of a method: the endpoint refused the request.
        Unreachable: of a method: the endpoint did not answer.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connection = Connection(url, api_key, timeout_s, retries, clock, jitter)
        self._http = httpx.Client(transport=transport, **self._connection.options)
        self._sleep = sleep

    search = blocking(calls.search)
    embed = blocking(calls.embed)
    moment = blocking(calls.moment)
    facets = blocking(calls.facets)
    put_sample = blocking(calls.put_sample)
    delete_sample = blocking(calls.delete_sample)
    sample = blocking(calls.sample)
    frames = blocking(calls.frames)
    frame = blocking(calls.frame)
    media = blocking(calls.media)
    index = blocking(calls.index)
    publish = blocking(calls.publish)
    rollback = blocking(calls.rollback)
    coverage = blocking(calls.coverage)
    failures = blocking(calls.failures)
    judge = blocking(calls.judge)
    withdraw = blocking(calls.withdraw)
    judgments = blocking(calls.judgments)

    def search_batch(
        self, queries: Iterable[Search], lines: int = LINES
    ) -> Iterator[SearchAnswer | ApiError]:
        """Search for many queries; yields an answer or an error for each, in their order.

        Queries are read and sent while answers are yielded, `lines` at a time. An error that
        concerns all of them is raised, such as `Unauthorized` or `Unreachable`.
        """
        return self._batch("/v1/search/batch", in_chunks(queries, Search, lines), SearchAnswer)

    def embed_batch(
        self, queries: Iterable[Query], lines: int = LINES
    ) -> Iterator[Embedding | ApiError]:
        """Embed many queries, as `search_batch` searches."""
        return self._batch("/v1/embed/batch", in_chunks(queries, Query, lines), Embedding)

    def put_samples(self, samples: Iterable[NewSample]) -> list[StoredItem]:
        """Insert or replace samples; returns the status of each, in their order.

        Those with status 200 are durable. After an error that is raised, such as `Unreachable`,
        some may be stored; to put all of them again is safe.
        """
        items: list[StoredItem] = []
        for chunk in in_chunks(samples, NewSample, MAX_SAMPLES):
            stored = self.send(calls.put_chunk(chunk))
            items += stored
        return items

    def ready(self) -> bool:
        """Whether the endpoint can answer queries now."""
        return self._probe("/readyz")

    def health(self) -> bool:
        """Whether the endpoint's process runs."""
        return self._probe("/healthz")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, call: Call[T]) -> T:
        """Send a call until it has an answer.

        Raises:
            ApiError: the endpoint refused it.
            Unreachable: the endpoint did not answer.
        """
        request = call.request(self._http)
        attempts = self._connection.attempts(is_idempotent=call.is_idempotent)
        while True:
            try:
                return call.answer(self._http.send(request), may_be_done=attempts.may_be_done)
            except FAILED as error:
                failure = error
            if (wait := attempts.wait_after(failure)) is None:
                raise self._connection.final(failure, attempts.failed)
            self._sleep(wait)

    def _batch(
        self, path: str, chunks: Iterator[list[bytes]], kind: type[T]
    ) -> Iterator[T | ApiError]:
        for lines in chunks:
            yield from self._chunk(path, Chunk(lines, kind))

    def _chunk(self, path: str, chunk: Chunk[T]) -> Iterator[T | ApiError]:
        attempts = self._connection.attempts()
        while True:
            content = chunk.begin()
            try:
                with self._http.stream("POST", path, content=content, headers=NDJSON) as response:
                    if response.status_code != 200:
                        response.read()
                        raise response_error(response)
                    for data in response.iter_bytes():
                        yield from chunk.take(data)
                yield from chunk.take(b"\n")
                chunk.check_end()
                return
            except FAILED as error:
                failure = error
            if chunk.has_progressed:
                attempts.restart()
            if (wait := attempts.wait_after(failure)) is None:
                yield from chunk.give_up(self._connection.final(failure, attempts.failed))
                return
            self._sleep(wait)

    def _probe(self, path: str) -> bool:
        try:
            return is_success(self._http.get(path))
        except httpx.TransportError:
            return False
