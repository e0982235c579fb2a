"""Batches of lines: read whole, answered in their order, without more memory than one request."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from serve.api import batch
from serve.api.batch import in_order, numbered, stored_lines
from serve.problems import add_problems

KIND = {"content-type": "application/x-ndjson"}
LIMIT = 20  # bytes of a line


def endpoint() -> FastAPI:
    api = FastAPI()
    add_problems(api)

    @api.post("/lines")
    async def lines(request: Request) -> list[list[Any]]:
        with await stored_lines(request, LIMIT) as stored:
            return [[number, line.decode().strip()] for number, line in numbered(stored)]

    return api


def post(*chunks: bytes, kind: dict[str, str] = KIND) -> httpx.Response:
    async def content() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(endpoint())
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.post("/lines", content=content(), headers=kind)

    return asyncio.run(one())


@pytest.mark.parametrize("memory", [0, 4, 1000], ids=lambda size: f"{size} bytes in memory")
def test_lines_are_joined_over_chunks_and_numbered(
    monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(batch, "MEMORY_BYTES", memory)
    answer = post(b'{"a"', b': 1}\n \r\n\n{"b": 2', b"}\n", b"3")
    assert answer.json() == [[0, '{"a": 1}'], [1, '{"b": 2}'], [2, "3"]]
    assert post().json() == post(b"\n\n").json() == []


def test_limits_hold_for_the_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_LINES", 2)
    assert len(post(b"1\n\n2\n", b"\n \n").json()) == 2  # empty lines do not count
    many = post(b"1\n2\n3")
    assert many.status_code == 422 and "over 2 lines" in many.text
    assert post(b"x" * LIMIT, b"\n", b"y" * LIMIT).status_code == 200
    for chunks in ([b"1\n" + b"x" * (LIMIT + 1)], [b"1\nxx", b"x" * (LIMIT - 1)]):
        long = post(*chunks)
        assert long.status_code == 413 and "line 2 has over 20 bytes" in long.text
    assert post(b"{}", kind={"content-type": "application/json"}).status_code == 415


def test_long_lines_are_worked_on_alone() -> None:
    running: set[int] = set()
    seen: list[set[int]] = []

    async def work(number: int, text: bytes) -> int:
        running.add(number)
        seen.append(set(running))
        await asyncio.sleep(0)
        running.remove(number)
        return number

    async def scene() -> list[int]:
        lines = enumerate([b"x" * 4, b"x" * 4, b"x" * 9, b"x" * 2, b"x" * 5])
        return [number async for number in in_order(lines, work, 10)]

    assert asyncio.run(scene()) == [0, 1, 2, 3, 4]
    assert {0, 1} in seen and {3, 4} in seen
    assert all(len(together) == 1 for together in seen if 2 in together)


def test_lines_are_read_no_further_than_they_are_worked_on() -> None:
    read: list[int] = []

    def lines() -> Iterator[tuple[int, bytes]]:
        for number in range(100):
            read.append(number)
            yield number, b"x"

    async def work(number: int, text: bytes) -> int:
        if number:
            await asyncio.Event().wait()
        return number

    async def scene() -> None:
        results = in_order(lines(), work, 1000)
        assert await anext(results) == 0
        assert len(read) == batch.LINES_AT_ONCE + 1
        await results.aclose()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1  # the others are cancelled

    asyncio.run(scene())
