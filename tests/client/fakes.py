"""An endpoint, a clock and both clients for tests, without network and without waiting."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx

from ampere.client import AsyncClient, Client

Handler = Callable[[httpx.Request], httpx.Response]


class FakeTime:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Endpoint:
    """Answers requests with given outcomes in turn, the last one again and again.

    Args:
        outcomes: responses, functions that make one, or errors to raise.
    """

    def __init__(self, *outcomes: httpx.Response | Handler | Exception) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = self.outcomes[min(len(self.requests), len(self.outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        if callable(outcome):
            return outcome(request)
        # A client binds the response that it gets to itself.
        return httpx.Response(outcome.status_code, headers=outcome.headers, stream=outcome.stream)

    @property
    def request(self) -> httpx.Request:
        """The only request."""
        (request,) = self.requests
        return request

    def bodies(self) -> list[list[Any]]:
        """The lines of each request, read as JSON."""
        return [
            [json.loads(line) for line in request.content.splitlines()] for request in self.requests
        ]


class Driver:
    """One of the two clients behind plain functions.

    Args:
        is_async: whether it is the one for asyncio.
        endpoint: that answers.
        options: of the client.
    """

    def __init__(self, is_async: bool, endpoint: Handler, **options: Any) -> None:
        self.time = FakeTime()
        self._is_async, self._endpoint = is_async, endpoint
        self._options = {"clock": self.time.clock, "jitter": lambda: 1.0} | options

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method."""
        if not self._is_async:
            with self._client() as client:
                return getattr(client, name)(*args, **kwargs)

        async def run() -> Any:
            async with self._async_client() as client:
                return await getattr(client, name)(*args, **kwargs)

        return asyncio.run(run())

    def batch(self, name: str, *args: Any, seen: Callable[[Any], None] | None = None) -> list[Any]:
        """The outcomes of a batch; `seen` is called with each when it comes."""
        outcomes: list[Any] = []

        def take(outcome: Any) -> None:
            outcomes.append(outcome)
            if seen:
                seen(outcome)

        if not self._is_async:
            with self._client() as client:
                for outcome in getattr(client, name)(*args):
                    take(outcome)
            return outcomes

        async def run() -> None:
            async with self._async_client() as client:
                async for outcome in getattr(client, name)(*args):
                    take(outcome)

        asyncio.run(run())
        return outcomes

    def _client(self) -> Client:
        transport = httpx.MockTransport(self._endpoint)
        return Client(transport=transport, sleep=self.time.sleep, **self._options)

    def _async_client(self) -> AsyncClient:
        transport = httpx.MockTransport(self._endpoint)
        return AsyncClient(transport=transport, sleep=self.time.sleep_async, **self._options)


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in parts, and then an error, if one is given."""

    def __init__(self, parts: Sequence[bytes], error: Exception | None = None) -> None:
        self._parts, self._error = parts, error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        if self._error:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def problem(status: int, detail: str = "no", *, code: str = "c", **headers: str) -> httpx.Response:
    """A problem document."""
    content = json.dumps({"status": status, "detail": detail, "code": code, "request_id": "r1"})
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=content, headers=kind | headers)


EMBEDDING = {"vector": [1.0, 0.0], "dimension": 2, "domain": "page", "model": "m@1"}


def embeddings(request: httpx.Request) -> httpx.Response:
    """Each line's text as the name of the model that embedded it."""
    return httpx.Response(200, content=b"".join(embedding_lines(request)))


def embedding_lines(request: httpx.Request) -> list[bytes]:
    """Lines of the answer of `embeddings`."""
    return [
        embedding_line(index, json.loads(line)["text"])
        for index, line in enumerate(request.content.split(b"\n")[:-1])
    ]


def embedding_line(index: int, model: str) -> bytes:
    """A line of a batch's answer."""
    answer = EMBEDDING | {"model": model}
    line = {"index": index, "status": 200, "answer": answer}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def refused_line(index: int, status: int, detail: str = "no") -> bytes:
    """A line of a batch's answer that is an error."""
    problem = {"status": status, "detail": detail, "request_id": "r1"}
    return json.dumps({"index": index, "status": status, "problem": problem}).encode() + b"\n"
