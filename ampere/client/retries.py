"""Which failed requests are sent again, and when: exponential backoff with full jitter."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from ampere.client.errors import ApiError

REFUSED = (429, 503)  # the endpoint asks to try again
LATE = "late"  # code of a 503 that came after the work had begun
GATEWAY = (502, 504)
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a request is sent again.

    The wait before attempt n + 1 is random, from 0 to `first_s` x 2^(n - 1) and at most
    `longest_s`. After an answer with Retry-After the wait is that, and on top a random time, up to
    half of it or as above, whichever is longer: clients that were refused together do not come
    back together.

    Attributes:
        total_s: no attempt begins later than this many seconds after the first; 0: one attempt.
        first_s: longest wait before the second attempt, in seconds.
        longest_s: longest wait before any attempt, in seconds.
    """

    total_s: float = 30.0
    first_s: float = 0.1
    longest_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("total_s", "first_s", "longest_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more seconds")


class Attempts:
    """The attempts of one request.

    Args:
        retries: limits.
        is_idempotent: whether it may be executed twice.
        clock: a monotonic clock, in seconds.
        jitter: random numbers from 0 to 1.

    Attributes:
        failed: attempts that failed.
        may_be_done: whether one of them may have been executed.
    """

    def __init__(
        self,
        retries: Retries,
        is_idempotent: bool,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._retries = retries
        self._is_idempotent = is_idempotent
        self._clock = clock
        self._jitter = jitter
        self.restart()

    def restart(self) -> None:
        """Start counting again, because part of the work is done."""
        self.failed, self.may_be_done = 0, False
        self._start = self._clock()

    def wait_after(self, error: Exception) -> float | None:
        """Seconds to wait after a failed attempt; None: it was the last one."""
        self.failed += 1
        self.may_be_done = self.may_be_done or not was_refused(error)
        if not may_pass(error, self._is_idempotent):
            return None
        # The exponent's bound keeps the power finite; no wait is that long.
        doubled = self._retries.first_s * 2 ** min(self.failed - 1, 60)
        longest = min(self._retries.longest_s, doubled)
        asked = (error.retry_after_s if isinstance(error, ApiError) else None) or 0.0
        wait = asked + max(longest, asked / 2) * self._jitter()
        is_late = self._clock() - self._start + wait > self._retries.total_s
        return None if is_late or not self._retries.total_s else wait


def may_pass(error: Exception, is_idempotent: bool) -> bool:
    """Whether a request may be sent again after an error.

    One that is not idempotent is sent again only if it was surely not executed.
    """
    if was_refused(error):
        return True
    if isinstance(error, ApiError):
        # Ray Serve's proxy answers 500, and no problem document, if a replica dies.
        is_gateways = error.status in GATEWAY or (error.status == 500 and not error.is_problem)
        return is_idempotent and (error.status in REFUSED or is_gateways)
    # Not an unsupported URL, for example.
    is_lost = isinstance(
        error, (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
    )
    return is_idempotent and is_lost


def was_refused(error: Exception) -> bool:
    """Whether a request was surely not executed: never sent, or refused before its work began."""
    if isinstance(error, ApiError):
        return error.status in REFUSED and error.code != LATE
    return isinstance(error, NOT_SENT)
