"""Admission: slots, clients, sizes and times of requests, before their body is read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from serve.guards import admission, refusals
from serve.guards.admission import FORM_BYTES, Admission, Slots, takes_slot
from serve.guards.envelope import Envelope
from serve.guards.refusals import Load
from serve.metrics import Metrics
from serve.problems import Problem, add_problems

MAX_UPLOAD = 3 * 2**20


class Endpoint:
    """A small application behind the guards, with two slots."""

    def __init__(self, slots: Slots | None = None, timeout_s: float = 60.0) -> None:
        self.slots = slots or Slots(total=2, per_client=2)
        self.slots.load = Load(jitter=lambda: 0.0)  # by chance Retry-After is 2
        self.began, self.finish = asyncio.Event(), asyncio.Event()
        metrics = Metrics("test")
        api = FastAPI()
        add_problems(api)

        @api.get("/healthz")
        async def healthz() -> dict[str, str]:
            return {"status": "ok"}

        @api.post("/v1/search")
        async def search(request: Request) -> int:
            return len(await request.body())

        @api.post("/v1/embed")
        async def embed() -> str:
            self.began.set()
            await self.finish.wait()
            return "done"

        api.add_middleware(
            Admission,
            slots=self.slots,
            metrics=metrics,
            max_upload_bytes=MAX_UPLOAD,
            timeout_s=timeout_s,
        )
        api.add_middleware(Envelope, metrics=metrics)
        self.metrics = metrics
        self.transport = httpx.ASGITransport(api, client=("10.0.0.1", 1))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport, base_url="http://endpoint")


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_request_without_a_slot_is_told_so_at_once_and_probes_still_answer() -> None:
    async def scene() -> None:
        endpoint = Endpoint()
        async with endpoint.client() as client:
            slow = [asyncio.create_task(client.post("/v1/embed")) for _ in range(2)]
            await settle()
            refused = await client.post("/v1/search", content=b"x")
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert "serve.max_concurrent" in refused.json()["detail"]
            assert (await client.get("/healthz")).status_code == 200
            endpoint.finish.set()
            assert [(await task).json() for task in slow] == ["done", "done"]
            assert (await client.post("/v1/search", content=b"x")).json() == 1
        assert b'ampere_refused_total{replica="test",status="429"} 1.0' in endpoint.metrics.text()

    asyncio.run(scene())


def test_second_of_two_refusals_waits_for_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "PER_SECOND", 1.0)
    monkeypatch.setattr(refusals, "HOLD_S", 0.5)

    async def scene() -> None:
        endpoint = Endpoint(Slots(total=1, per_client=1))
        async with endpoint.client() as client:
            slow = asyncio.create_task(client.post("/v1/embed"))
            await endpoint.began.wait()
            first, second = (
                asyncio.create_task(client.post("/v1/search", content=b"x")) for _ in range(2)
            )
            await first
            await settle()
            assert first.result().status_code == 429 and not second.done()
            assert (await second).status_code == 429
            endpoint.finish.set()
            assert (await slow).status_code == 200

    asyncio.run(scene())


def test_few_requests_wait_for_their_turn_and_further_ones_are_refused() -> None:
    async def scene() -> None:
        slots = Slots(total=2, per_client=2)
        queue = asyncio.gather(*(slots.queue() for _ in range(18)), return_exceptions=True)
        refused = [isinstance(turn, Problem) and turn.status for turn in await queue]
        assert refused == [False] * 16 + [429] * 2  # eight for each slot; the last to come
        assert slots.queued == 0 and await slots.queue() is None

    asyncio.run(scene())


def test_one_request_begins_in_each_iteration_of_the_event_loop() -> None:
    """An iteration, in which uvloop accepts one connection, must not hold all searches."""

    async def scene() -> None:
        slots, iterations = Slots(total=2, per_client=2), 0
        began: list[tuple[int, int]] = []

        async def count_iterations() -> None:
            nonlocal iterations
            while True:
                await asyncio.sleep(0)
                iterations += 1

        async def request(number: int) -> None:
            await slots.queue()
            began.append((number, iterations))

        clock = asyncio.create_task(count_iterations())
        await asyncio.gather(*map(request, range(8)))
        clock.cancel()
        assert [number for number, _ in began] == list(range(8))
        assert len({at for _, at in began}) == 8

    asyncio.run(scene())


def test_slots_are_counted_over_all_clients_and_for_each() -> None:
    slots = Slots(total=3, per_client=2)
    slots.take("a"), slots.take("a")
    with pytest.raises(Exception, match="this key has 2 requests in progress"):
        slots.take("a")
    slots.take("b")
    with pytest.raises(Exception, match="the endpoint works on 3 requests"):
        slots.take("c")
    slots.give_back("a")
    slots.take(None)  # without a key the total alone counts
    assert slots.taken == 3 and slots.clients == {"a": 1, "b": 1}
    slots.give_back(None)
    assert slots.taken == 2


def test_body_beyond_the_limit_is_refused_by_its_declared_length_or_as_it_arrives() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * 2**20

    async def scene() -> None:
        async with Endpoint().client() as client:
            largest = MAX_UPLOAD * 4 // 3 + FORM_BYTES
            assert (await client.post("/v1/search", content=b"x" * largest)).json() == largest
            declared = await client.post("/v1/search", content=b"x" * (largest + 1))
            streamed = await client.post("/v1/search", content=chunks())
            for answer in (declared, streamed):
                assert answer.status_code == 413
                assert answer.headers["content-type"] == "application/problem+json"
                assert "serve.max_upload_mb" in answer.json()["detail"]

    asyncio.run(scene())


def test_upload_that_stalls_is_ended_and_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "IDLE_S", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.Event().wait()

    async def scene() -> None:
        endpoint = Endpoint()
        async with endpoint.client() as client:
            ended = await client.post("/v1/search", content=stalled())
        assert ended.status_code == 408 and "no byte of the body for" in ended.json()["detail"]
        assert endpoint.slots.taken == 0

    asyncio.run(scene())


def test_request_beyond_its_time_gets_503_and_frees_its_slot() -> None:
    async def scene() -> None:
        endpoint = Endpoint(timeout_s=0.01)
        async with endpoint.client() as client:
            late = await client.post("/v1/embed")
        assert late.status_code == 503 and "serve.request_timeout_s" in late.json()["detail"]
        assert late.headers["retry-after"] == "5" and endpoint.slots.taken == 0

    asyncio.run(scene())


def test_draining_answers_the_requests_in_progress_and_refuses_others() -> None:
    async def scene() -> None:
        endpoint = Endpoint()
        async with endpoint.client() as client:
            first = asyncio.create_task(client.post("/v1/embed"))
            await endpoint.began.wait()
            drained = asyncio.create_task(endpoint.slots.drain())
            await settle()
            refused = await client.post("/v1/search", content=b"x")
            assert refused.status_code == 503 and "stopping" in refused.json()["detail"]
            assert not drained.done()
            endpoint.finish.set()
            assert (await first).status_code == 200
            await drained

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "path", "needs_slot"),
    [
        ("POST", "/v1/search", True),
        ("PUT", "/v1/samples", True),
        ("POST", "/v1/samples/a%2Fb/moment", True),
        ("GET", "/v1/samples/a", False),
        ("POST", "/v1/judgments", False),
        ("DELETE", "/v1/samples/a", False),
    ],
)
def test_requests_that_decode_embed_or_search_take_a_slot(
    method: str, path: str, needs_slot: bool
) -> None:
    assert takes_slot(method, path) is needs_slot


def test_bug_is_answered_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    api = FastAPI()

    @api.get("/bug")
    async def bug() -> Any:
        raise RuntimeError("/srv/secret/path")

    api.add_middleware(Envelope, metrics=Metrics("test"))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.get("/bug")

    answer = asyncio.run(ask())
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "/srv/secret/path" in caplog.text  # for the operator
