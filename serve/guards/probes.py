"""HEAD and OPTIONS, to which FastAPI answers 405."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


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
        try:
            await self.app(inner, receive, send_head)
        finally:
            if "route" in inner:  # the metrics name it
                scope["route"] = inner["route"]
