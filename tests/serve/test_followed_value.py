"""Values of the workspace that requests need while its store may not answer."""

import asyncio
import logging
import threading

import pytest

from serve import followed_value
from serve.followed_value import FollowedValue

ALWAYS, NEVER = -1.0, 3600.0  # read again


def test_value_is_read_again_when_it_is_too_old() -> None:
    values = iter([1, 2])
    value = FollowedValue(lambda: next(values), "numbers")
    assert asyncio.run(value.get(NEVER)) == 1
    assert asyncio.run(value.get(ALWAYS)) == 2


def test_store_that_does_not_answer_delays_one_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads, answers = [], threading.Event()

    def read() -> int:
        reads.append(1)
        if len(reads) == 1:
            return 1
        answers.wait(timeout=10)
        return 2

    async def scene() -> None:
        value = FollowedValue(read, "numbers")
        monkeypatch.setattr(followed_value, "WAIT_S", 0.01)
        assert await value.get(ALWAYS) == 1
        async with asyncio.timeout(10):
            while len(reads) == 1:
                await asyncio.sleep(0)
        monkeypatch.setattr(followed_value, "WAIT_S", NEVER)
        assert await value.get(ALWAYS) == 1  # it does not wait, and starts no second read
        assert len(reads) == 2
        answers.set()
        async with asyncio.timeout(10):
            while value.value == 1:
                await asyncio.sleep(0)
        assert await value.get(ALWAYS) == 2 and len(reads) == 3

    asyncio.run(scene())


def test_failed_read_keeps_the_previous_value(caplog: pytest.LogCaptureFixture) -> None:
    reads = iter([lambda: 1, lambda: 1 / 0, lambda: 3])
    value = FollowedValue(lambda: next(reads)(), "numbers")
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        assert asyncio.run(value.get(ALWAYS)) == 1
    assert "cannot read numbers; the previous value is kept" in caplog.text
    assert asyncio.run(value.get(ALWAYS)) == 3
