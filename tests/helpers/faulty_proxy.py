"""A proxy in front of an HTTP server that can be away, slow, busy, or lose answers."""

import asyncio
import contextlib
import io
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

from tests.helpers.processes import free_port

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class FaultyProxy:
    """Forwards requests to a server, with the faults that are set.

    Attributes:
        url: its own address.
        delay_s: seconds before each answer.
        busy_share: share of the requests that are answered with status 503.
        lost_answers: number of further PUT requests of paths with `lost_paths` that are forwarded,
            but whose connection is cut instead of an answer.
        lost_paths: a part of the path.
        hidden: names of request headers that are not forwarded, in small letters.
        requests: their number so far.
    """

    def __init__(self, server: str) -> None:
        self._server, self._port = server, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.delay_s, self.busy_share, self.lost_answers = 0.0, 0.0, 0
        self.lost_paths = ""
        self.hidden: set[str] = set()
        self.requests = 0
        self._is_away, self._rng = False, random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._start())

    def leave(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._is_away = True
        self._call(self._site.stop())

    def come_back(self) -> None:
        """Answer again."""
        self._is_away = False
        self._call(self._listen())

    def close(self) -> None:
        """End the proxy."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._client = ClientSession(auto_decompress=False, timeout=ClientTimeout(total=None))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self._is_away:
            return self._cut(request)
        if self._rng.random() < self.busy_share:
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>")
        status, headers, content = await self._forward(request, body)
        is_loseable = request.method == "PUT" and self.lost_paths in request.path
        if is_loseable and self.lost_answers:
            self.lost_answers -= 1
            return self._cut(request)
        if self._is_away:
            return self._cut(request)
        return web.Response(status=status, headers=headers, body=content)

    async def _forward(
        self, request: web.Request, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in HOP_BY_HOP | self.hidden
        }
        url = URL(self._server + request.raw_path, encoded=True)
        async with self._client.request(
            request.method, url, headers=headers, data=io.BytesIO(body), allow_redirects=False
        ) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in HOP_BY_HOP
            }
            return answer.status, kept, await answer.read()

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


@contextmanager
def faulty_proxy(server: str) -> Iterator[FaultyProxy]:
    """Run a proxy in front of a server."""
    proxy = FaultyProxy(server)
    try:
        yield proxy
    finally:
        with contextlib.suppress(RuntimeError):
            proxy.close()
