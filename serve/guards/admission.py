"""Which requests may begin: bounds on their number, size and time, before their body is read."""

import asyncio
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.guards.access import LOOPBACK
from serve.guards.refusals import Load, Pace
from serve.metrics import Metrics
from serve.problems import Problem

IDLE_S = 10.0  # without a byte of a body, which holds a slot that others need
FORM_BYTES = 2**20  # allowed for the other fields of a request
BASE64 = 4 / 3  # a JSON body holds files in base64
BATCH_PARTS = 16
QUEUED_PER_SLOT = 8  # searches by a vector: 64 of them take 0.1 s
WORKING_METHODS = ("POST", "PUT")
LIGHT_PATHS = ("/v1/session", "/v1/judgments", "/v1/index/publish", "/v1/index/rollback")


class Slots:
    """Limits the requests of a gateway replica that decode, embed or search at the same time.

    There is no queue for slots: a request that finds no free one is refused, and may be sent again.
    With a queue, each admitted request would wait for all requests before it.

    A search that waits for nothing is over before the next request begins, so that it finds a free
    slot always. Such requests queue for the event loop instead, `QUEUED_PER_SLOT` for each slot.

    Args:
        total: requests at the same time.
        per_client: of one API key.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self.total, self.per_client = total, per_client
        self.clients: Counter[str] = Counter()
        self.taken = self.queued = 0
        self.draining = False
        self.load = Load()
        self._empty = asyncio.Event()
        self._turn = asyncio.Lock()

    async def queue(self) -> None:
        """Return when it is this request's turn, after those that arrived before it.

        Raises:
            Problem: 429, too many are before it.
        """
        if self.queued >= QUEUED_PER_SLOT * self.total:
            raise Problem(429, "busy", retry_after_s=self.load.refused(), limit=self.total)
        self.queued += 1
        try:
            # One request begins in each iteration of the event loop. uvloop accepts one connection
            # in an iteration: if all waiting requests began in the same one, a new client would
            # wait for all of them.
            async with self._turn:
                await asyncio.sleep(0)
        finally:
            self.queued -= 1

    def take(self, client: str | None) -> None:
        """Take a slot.

        Args:
            client: its API key; None: it has none, and only the total counts.

        Raises:
            Problem: 503, the endpoint is stopping; 429, there is none.
        """
        if self.draining:
            raise Problem(503, "stopping", retry_after_s=2)
        if client is not None and self.clients[client] >= self.per_client:
            raise Problem(429, "busy.key", retry_after_s=self.load.refused(), limit=self.per_client)
        if self.taken >= self.total:
            raise Problem(429, "busy", retry_after_s=self.load.refused(), limit=self.total)
        self.taken += 1
        if client is not None:
            self.clients[client] += 1

    def give_back(self, client: str | None) -> None:
        """Free a slot."""
        self.load.answered()
        self.taken -= 1
        if client is not None:
            self.clients[client] -= 1
            if not self.clients[client]:
                del self.clients[client]
        if not self.taken:
            self._empty.set()

    async def drain(self) -> None:
        """Refuse further requests, and wait for the answers of those in progress."""
        self.draining = True
        while self.taken:
            self._empty.clear()
            await self._empty.wait()


class Admission:
    """Gives each request a slot, a limit on its body, and a time.

    Args:
        app: the application behind it.
        slots: of this replica.
        metrics: counts those that are refused.
        max_upload_bytes: of a file.
        timeout_s: of a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        slots: Slots,
        metrics: Metrics,
        max_upload_bytes: int,
        timeout_s: float,
    ) -> None:
        self.app, self.slots, self.metrics = app, slots, metrics
        self.max_upload_bytes, self.timeout_s = max_upload_bytes, timeout_s
        self.pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 408, 413, 429 or 503."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        needs_slot = takes_slot(scope["method"], scope["path"])
        limit_s = self.timeout_s * parts_of(scope["path"])
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            if needs_slot:
                await self.slots.queue()
                self.slots.take(client)
            try:
                limited = self._limited(scope, receive)
                async with asyncio.timeout(limit_s):
                    await self.app(scope, limited, sending)
            finally:
                if needs_slot:
                    self.slots.give_back(client)
        except TimeoutError as error:
            problem = Problem(503, "late", retry_after_s=5, seconds=f"{limit_s:g}")
            await self._refuse(problem, scope, receive, sending, began, error)
        except Problem as problem:
            await self._refuse(problem, scope, receive, sending, began, problem)

    async def _refuse(
        self,
        problem: Problem,
        scope: Scope,
        receive: Receive,
        send: Send,
        began: bool,
        error: Exception,
    ) -> None:
        if began:  # nothing but an early end tells the client now
            raise error
        if problem.status == 429:
            await self.pace.wait(scope)
        self.metrics.refused(problem.status)
        await problem.response(scope["ampere.request_id"])(scope, receive, send)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """A `receive` that raises 413 and 408 before a body is stored."""
        limit = body_limit(self.max_upload_bytes) * parts_of(scope["path"])
        declared = Headers(scope=scope).get("content-length", "0")
        read, complete = 0, False

        async def limited() -> Message:
            nonlocal read, complete
            if complete:
                return await receive()  # waits until the client disconnects
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await receive()
            except TimeoutError as error:
                raise Problem(408, "body.stalled", seconds=f"{IDLE_S:g}") from error
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            size = max(read, int(declared) if declared.isdecimal() else 0)
            if size > limit:
                raise Problem(413, "body.large", size=size, limit=limit)
            return message

        return limited


def body_limit(max_upload_bytes: int) -> int:
    """Bytes of a request's body, or of a line of a batch."""
    return int(max_upload_bytes * BASE64) + FORM_BYTES


def parts_of(path: str) -> int:
    """How many times the limits of one request those of a path are; a batch has many lines."""
    return BATCH_PARTS if path.endswith("/batch") else 1


def takes_slot(method: str, path: str) -> bool:
    """Whether a request decodes, embeds or searches."""
    return method in WORKING_METHODS and path not in LIGHT_PATHS


def client_of(scope: Scope) -> str | None:
    """The API key of a request; None: it has none, and clients cannot be distinguished.

    All addresses are that of Serve's proxy, and a header may be made up.
    """
    key = scope.get("ampere.key_id")
    return None if key == LOOPBACK else key
