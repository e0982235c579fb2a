"""The outermost guard: what it counts and logs, also of clients that leave."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from serve.guards.envelope import Envelope
from serve.guards.probes import ProbeMethods
from serve.metrics import Metrics


def endpoint(metrics: Metrics) -> FastAPI:
    api = FastAPI()

    @api.post("/v1/search")
    async def search(request: Request) -> int:
        return len(await request.body())

    @api.get("/healthz")
    async def healthz() -> str:
        return "ok"

    api.add_middleware(ProbeMethods)
    api.add_middleware(Envelope, metrics=metrics)
    return api


def count(method: str, route: str, status: int) -> bytes:
    labels = f'method="{method}",replica="r",route="{route}",status="{status}"'
    return f"ampere_requests_total{{{labels}}} 1.0".encode()


def test_client_that_leaves_in_the_middle_of_an_upload_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, sent = Metrics("r"), []
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": []}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    with caplog.at_level(logging.ERROR):
        asyncio.run(endpoint(metrics)(scope, receive, send))
    assert not sent and not caplog.records
    assert count("POST", "/v1/search", 0) in metrics.text()


def test_head_counts_for_its_route() -> None:
    metrics = Metrics("r")

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(endpoint(metrics))
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.head("/healthz")

    answer = asyncio.run(one())
    assert answer.status_code == 200 and not answer.content
    assert count("HEAD", "/healthz", 200) in metrics.text()
