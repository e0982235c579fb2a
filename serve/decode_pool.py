"""A pool of isolated processes that decode uploads, which may hang, crash or be huge."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ampere.media.isolated import IsolatedProcess

P = ParamSpec("P")
R = TypeVar("R")


class DecodePool:
    """Isolated processes, each with one call at a time; a process that dies is replaced.

    Args:
        size: number of processes.
        time_limit_s: for one call.
        memory_limit_gb: of each process.
    """

    def __init__(self, size: int, time_limit_s: float, memory_limit_gb: float) -> None:
        self._processes = [IsolatedProcess(time_limit_s, memory_limit_gb) for _ in range(size)]
        self._idle: asyncio.LifoQueue[IsolatedProcess] = asyncio.LifoQueue()  # the warmest first
        for process in self._processes:
            self._idle.put_nowait(process)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function(*args, **kwargs)` in a process, when one is free.

        Raises:
            MediaError: as `IsolatedProcess.call`.
        """
        process = await self._idle.get()
        call = asyncio.ensure_future(
            asyncio.to_thread(lambda: process.call(function, *args, **kwargs))
        )
        # A request that is given up must not free a process that still works.
        call.add_done_callback(lambda _: self._idle.put_nowait(process))
        return await asyncio.shield(call)

    async def warm_up(self) -> None:
        """Start all processes, so that no request waits for it."""
        await asyncio.gather(*(self.call(len, ()) for _ in self._processes))

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.stop()
