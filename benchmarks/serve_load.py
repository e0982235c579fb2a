"""A load generator for `benchmarks/serve.py`, in a process of its own."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from urllib.parse import urlsplit

import numpy as np

FORM = "multipart/form-data; boundary=frontier"
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Requests of one kind.

    Attributes:
        name: such as picture.
        path: of the route.
        bodies: JSON bodies, or files; each file is made unique, so that no cache knows it.
        is_file: whether the bodies are files.
        is_clip: whether the files are MP4.
    """

    name: str
    path: str = "/v1/search"
    bodies: tuple[bytes, ...] = ()
    is_file: bool = False
    is_clip: bool = False

    def requests(self, host: str, seed: int) -> Iterator[bytes]:
        """Whole HTTP requests, without end."""
        rng = random.Random(seed)
        while True:
            body, content_type = rng.choice(self.bodies), JSON
            if self.is_file:
                body, content_type = form(unique(body, self.is_clip)), FORM
            head = f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
            yield f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Outcome:
    """The result of a load.

    Attributes:
        seconds: of each answer with status 200.
        statuses: status -> number of answers; 0: the connection broke.
        duration: of the load, in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    duration: float = 0.0

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return len(self.seconds) / self.duration

    def percentile_ms(self, percent: float) -> float:
        """Of the times of answers with status 200; infinity if there is none."""
        return 1e3 * float(np.percentile(self.seconds, percent)) if self.seconds else float("inf")

    def __str__(self) -> str:
        shown = " / ".join(f"{self.percentile_ms(p):.1f}" for p in (50, 95, 99))
        others = {status: count for status, count in self.statuses.items() if status != 200}
        return f"{self.rate:7.1f}/s  p50 / p95 / p99 {shown} ms" + (f"  {others}" if others else "")


def unique(file: bytes, is_clip: bool) -> bytes:
    """The same picture or clip with other bytes: behind a JPEG's end, or in a box to skip."""
    mark = os.urandom(16)  # not of a seed, which an earlier load may have had
    return file + (b"\x00\x00\x00\x18free" + mark if is_clip else mark)


def form(file: bytes) -> bytes:
    """A form with one file."""
    head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    return head + file + b"\r\n--frontier--\r\n"


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection, request: bytes) -> tuple[int, bool]:
    """Send a request and read its answer; returns the status, and whether the connection stays."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    version, status = lines[0].split()[:2]
    stays = version == "http/1.1" and headers.get("connection") != "close"
    if not stays:
        writer.close()
    return int(status), stays


async def closed(url: str, kind: Kind, clients: int, seconds: float) -> Outcome:
    """Each client sends its next request when it has the answer to the one before."""
    outcome, parts = Outcome(), urlsplit(url)
    end = time.perf_counter() + seconds

    async def client(seed: int) -> None:
        connection = None
        for request in kind.requests(parts.netloc, seed):
            start = time.perf_counter()
            if start >= end:
                break
            try:
                connection = connection or await asyncio.open_connection(parts.hostname, parts.port)
                status, stays = await ask(connection, request)
            except (OSError, asyncio.IncompleteReadError):
                status, stays = 0, False
            connection = connection if stays else None
            outcome.statuses[status] += 1
            if status == 200:
                outcome.seconds.append(time.perf_counter() - start)
        if connection:
            connection[1].close()

    begin = time.perf_counter()
    await asyncio.gather(*(client(seed) for seed in range(clients)))
    outcome.duration = time.perf_counter() - begin
    return outcome


async def opened(url: str, kind: Kind, rate: float, seconds: float) -> Outcome:
    """Requests come at random times at a rate, whether there are answers or not."""
    outcome, parts, rng = Outcome(), urlsplit(url), random.Random(0)
    requests = kind.requests(parts.netloc, 1)
    idle: list[Connection] = []

    async def one(request: bytes) -> None:
        start = time.perf_counter()
        try:
            connection = (
                idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port)
            )
            status, stays = await ask(connection, request)
            if stays:
                idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        outcome.statuses[status] += 1
        if status == 200:
            outcome.seconds.append(time.perf_counter() - start)

    begin, tasks = time.perf_counter(), []
    next_at = begin
    while next_at < begin + seconds:
        await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
        tasks.append(asyncio.create_task(one(next(requests))))
        next_at += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    outcome.duration = time.perf_counter() - begin
    for _, writer in idle:
        writer.close()
    return outcome


def run_closed(url: str, kind: Kind, clients: int, seconds: float) -> Outcome:
    """`closed` in this process."""
    return asyncio.run(closed(url, kind, clients, seconds))


def run_opened(url: str, kind: Kind, rate: float, seconds: float) -> Outcome:
    """`opened` in this process."""
    return asyncio.run(opened(url, kind, rate, seconds))


class Generator:
    """The second process, which sends the load."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def closed(self, kind: Kind, clients: int, seconds: float) -> Outcome:
        """Load of clients that wait for their answers."""
        return self._pool.submit(run_closed, self.url, kind, clients, seconds).result()

    def opened(self, kind: Kind, rate: float, seconds: float) -> Outcome:
        """Load at a rate."""
        return self._pool.submit(run_opened, self.url, kind, rate, seconds).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def json_bodies(objects: list[dict[str, object]]) -> tuple[bytes, ...]:
    """JSON bodies of requests."""
    return tuple(json.dumps(one, ensure_ascii=False).encode() for one in objects)
