"""The outermost guard: a request id, security headers, metrics, and no traceback for anyone."""

import secrets
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.metrics import Metrics
from serve.problems import REQUEST_ID, server_error

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Envelope:
    """Gives each request an id, and each answer its headers.

    Args:
        app: the application behind it.
        metrics: counts requests and measures them.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Serve's proxy gives each request an id, and adds it to the answer by itself.
        given = Headers(scope=scope).get(REQUEST_ID)
        request_id = scope["ampere.request_id"] = given or secrets.token_hex(8)
        status, start = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                own = {name.lower() for name, _ in headers}
                if given is None:
                    headers.append((REQUEST_ID.encode(), request_id.encode()))
                headers += [header for header in HEADERS if header[0] not in own]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody waits for an answer
        except Exception as error:
            problem = server_error(error, request_id)
            if status:  # the answer has begun: the connection ends before its end
                raise
            await problem.response(request_id)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(scope["method"], route, status, time.perf_counter() - start)
