"""A value of the workspace that requests need, read again when it is old."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
WAIT_S = 1.0  # how long a request waits for the store
logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


class FollowedValue(Generic[T]):
    """The last value that was read; asking for it reads it again if it is old.

    One read runs at a time. While the store does not answer, or fails, the previous value is kept.

    Args:
        read: reads the value from the store; in a thread, except the first time.
        name: of the value, for the log.
    """

    def __init__(self, read: Callable[[], T], name: str) -> None:
        self._read, self._name = read, name
        self.value = read()
        self._read_at = time.monotonic()
        self._reading: asyncio.Future[None] | None = None

    async def get(self, max_age_s: float) -> T:
        """The value; the first request that finds it too old waits for `WAIT_S` at most.

        Others that come while it is read again get the previous value.
        """
        is_reading = self._reading is not None and not self._reading.done()
        if not is_reading and time.monotonic() - self._read_at > max_age_s:
            self._reading = asyncio.ensure_future(self._read_again())
            await asyncio.wait([self._reading], timeout=WAIT_S)
        return self.value

    async def _read_again(self) -> None:
        try:
            self.value = await asyncio.to_thread(self._read)
        except Exception:  # the next request may succeed
            logger.exception("cannot read %s; the previous value is kept", self._name)
        finally:
            self._read_at = time.monotonic()
