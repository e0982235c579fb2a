"""When refused requests are answered, and when their clients should come back."""

import asyncio

import pytest

from serve.gateway import ONGOING
from serve.guards import refusals
from serve.guards.refusals import HELD, HELD_BODY_BYTES, HOLD_S, LONGEST_S, PER_SECOND, Load, Pace

SMALL = {"type": "http", "headers": [(b"content-length", b"100")]}


class Clock:
    """A clock that the test moves forward."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def waits(clock: Clock, refused: int, scope: dict[str, object] | None = None) -> list[float]:
    """How long requests that are refused at one instant wait for their answers."""

    async def refuse() -> None:
        pace = Pace(clock, clock.sleep)
        for _ in range(refused):
            await pace.wait(scope or SMALL)

    clock.waits.clear()
    asyncio.run(refuse())
    return clock.waits


def test_refusals_are_answered_at_once_until_there_are_many() -> None:
    found = waits(Clock(), 4)
    assert found == pytest.approx([1 / PER_SECOND, 2 / PER_SECOND, 3 / PER_SECOND])


def test_refusal_waits_no_longer_than_a_bound() -> None:
    found = waits(Clock(), 1000)
    assert max(found) == HOLD_S == found[-1]


def test_refusals_far_apart_do_not_wait() -> None:
    clock = Clock()
    pace = Pace(clock, clock.sleep)

    async def scene() -> None:
        for _ in range(5):
            await pace.wait(SMALL)
            clock.now += 2 / PER_SECOND

    asyncio.run(scene())
    assert clock.waits == []


@pytest.mark.parametrize("length", [None, str(HELD_BODY_BYTES + 1), "-1", "x"])
def test_refusal_of_an_upload_does_not_wait_because_its_body_would_be_kept(
    length: str | None,
) -> None:
    headers = [] if length is None else [(b"content-length", length.encode())]
    assert waits(Clock(), 10, {"type": "http", "headers": headers}) == []


def test_refusals_that_wait_are_bounded_and_leave_when_their_client_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert HELD < ONGOING  # others must still be answered
    monkeypatch.setattr(refusals, "HELD", 3)

    async def scene() -> None:
        pace = Pace()
        held = [asyncio.create_task(pace.wait(SMALL)) for _ in range(5)]
        await asyncio.sleep(0)
        assert (pace.held, [task.done() for task in held]) == (3, [True, False, False, False, True])
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert pace.held == 0

    asyncio.run(scene())


def asked(answered: int, refused: int, jitter: float = 0.5, later_s: float = 0.0) -> float:
    """Seconds that the last of some refused requests is asked to wait."""
    clock = Clock()
    load = Load(clock, lambda: jitter)
    for _ in range(answered):
        load.answered()
    for _ in range(refused - 1):
        load.refused()
    clock.now += later_s
    return load.refused()


def test_clients_are_asked_to_wait_as_long_as_those_refused_would_queue() -> None:
    assert asked(answered=100, refused=1) == 1
    assert asked(answered=100, refused=800) == 8
    assert asked(answered=0, refused=10_000) == LONGEST_S
    assert asked(answered=100, refused=800, later_s=60) == 1


def test_waits_differ_and_their_mean_is_that_of_the_load() -> None:
    assert asked(100, 800, jitter=0.0) == 4
    assert asked(100, 800, jitter=0.99) == 12
    assert asked(1, 1, jitter=0.0) == 1  # never at once
