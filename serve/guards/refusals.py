"""How requests without a slot are refused, so that refusing them does not take the cores.

A refusal takes an eighth of the gateway's time for a search by a vector. Clients that send again at
once would get a thousand of them a second, and leave half of the time for those that are admitted.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import Scope

MEMORY_S = 2.0  # after this time a count has lost 63 % of its weight
SHORTEST_S, LONGEST_S = 1.0, 10.0  # that a client is asked to wait, on average
PER_SECOND = 100.0  # refusals that are answered at once
HELD = 500  # refusals that wait for their answer; fewer than `serve.gateway.ONGOING`
HOLD_S = 2.0  # longest wait of a refusal
# Serve reads bodies ahead, without a bound. Those that wait must be small; others take their time
# to arrive.
HELD_BODY_BYTES = 2**16


class Load:
    """How long the clients that were refused lately would have to wait in a queue.

    Args:
        clock: a monotonic clock, in seconds.
        jitter: random numbers from 0 to 1.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._jitter = clock, jitter
        self._answered, self._refused, self._at = 0.0, 0.0, clock()

    def answered(self) -> None:
        """Count a request that was answered."""
        self._age()
        self._answered += 1

    def refused(self) -> float:
        """Count a refusal; returns when to send that request again, in seconds.

        That is the time in which as many requests are answered as are refused in one second, half
        of it to one and a half times, so that the clients do not come back together.
        """
        self._age()
        self._refused += 1
        wait = self._refused / max(self._answered, 1.0)
        wait = min(max(wait, SHORTEST_S), LONGEST_S) * (0.5 + self._jitter())
        # The header has whole seconds; the mean stays.
        return max(SHORTEST_S, math.floor(wait + self._jitter()))

    def _age(self) -> None:
        now = self._clock()
        weight = math.exp((self._at - now) / MEMORY_S)
        self._answered, self._refused = self._answered * weight, self._refused * weight
        self._at = now


class Pace:
    """Lets refusals wait for their answer while there are more than `PER_SECOND`.

    Args:
        clock: a monotonic clock, in seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._next, self.held = clock(), 0

    async def wait(self, scope: Scope) -> None:
        """Return when a refused request may be answered; at once if its body is not small."""
        if self.held >= HELD or not has_small_body(scope):
            return
        now = self._clock()
        turn = min(max(self._next, now), now + HOLD_S)
        self._next = turn + 1 / PER_SECOND
        if turn <= now:
            return
        self.held += 1
        try:
            await self._sleep(turn - now)
        finally:
            self.held -= 1


def has_small_body(scope: Scope) -> bool:
    """Whether a request declares a body of at most `HELD_BODY_BYTES`."""
    declared = Headers(scope=scope).get("content-length", "")
    return declared.isdecimal() and int(declared) <= HELD_BODY_BYTES
