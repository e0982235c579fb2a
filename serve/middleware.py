"""What every request passes before the gateway: bounds on uploads, and the methods of probes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORM_BYTES = 2**20  # allowed for the other form fields of a request
RUNNING, QUEUED = 100, 200  # uploads; further ones get 503
IDLE_S = 10.0  # without a byte of an upload, which holds a place that others need


def gateway() -> Any:
    """The gateway of this replica."""
    return serve.get_replica_context().servable_object


def too_large(max_upload_mb: int) -> HTTPException:
    """The answer to an upload beyond the limit."""
    return HTTPException(413, f"the file is larger than {max_upload_mb} MB")


class Uploads:
    """The pool of a replica's uploads: `RUNNING` at a time, and at most `QUEUED` that wait.

    It is not Serve's own pool, whose places all requests share: health checks must not wait.
    """

    def __init__(self) -> None:
        self.running = asyncio.Semaphore(RUNNING)
        self.count = 0  # running and waiting
        self.draining = False
        self.empty = asyncio.Event()

    async def run(self, upload: Callable[[], Awaitable[None]]) -> bool:
        """Await `upload()` when there is a place; False, without it, if the pool is full."""
        if self.draining or self.count >= RUNNING + QUEUED:
            return False
        self.count += 1
        try:
            async with self.running:
                await upload()
        finally:
            self.count -= 1
            if not self.count:
                self.empty.set()
        return True

    async def drain(self) -> None:
        """Refuse further uploads, and wait for the answers of those in the pool."""
        self.draining = True
        while self.count:
            self.empty.clear()
            await self.empty.wait()


class UploadLimit:
    """Bounds the number of uploads, the size of each, and the time without any byte of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer 503 if the pool is full."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        limited = limited_body(scope, receive, gateway().max_upload_mb)
        if not await gateway().uploads.run(lambda: self.app(scope, limited, send)):
            detail = "too many uploads, or the endpoint is stopping; try again later"
            await JSONResponse({"detail": detail}, 503)(scope, receive, send)


def limited_body(scope: Scope, receive: Receive, max_upload_mb: int) -> Receive:
    """A `receive` that raises 413 and 408 before the form parser stores the body on disk."""
    limit = max_upload_mb * 2**20 + FORM_BYTES
    declared = int(dict(scope["headers"]).get(b"content-length", b"0"))
    read, complete = 0, False

    async def limited() -> Message:
        nonlocal read, complete
        if complete:
            return await receive()  # waits until the client disconnects
        try:
            message = await asyncio.wait_for(receive(), IDLE_S)
        except TimeoutError as error:
            raise HTTPException(408, f"no data of the upload for {IDLE_S:g} s") from error
        read += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if max(read, declared) > limit:
            raise too_large(max_upload_mb)
        return message

    return limited


class ProbeMethods:
    """Answers HEAD like GET, without the body, and OPTIONS with the allowed methods."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; FastAPI answers 405 to both methods."""
        method = scope.get("method")
        if method not in ("HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            elif method == "OPTIONS" and message.get("status") == 405:
                headers = MutableHeaders(raw=[(b"content-length", b"0")])
                allowed = MutableHeaders(scope=message)["allow"]
                headers["allow"] = allowed.replace("GET", "GET, HEAD") + ", OPTIONS"
                message = {**message, "status": 200, "headers": headers.raw}
            await send(message)

        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        await self.app(inner, receive, send_head)


class OtherOrigins(CORSMiddleware):
    """Lets the pages of the origins in `serve.origins` use the endpoint (CORS)."""

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether the settings name an origin, such as `https://shop.example`."""
        return bool({origin, "*"} & set(gateway().origins))
