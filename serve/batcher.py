"""Dynamic batching: a batch holds the calls that arrived while the previous one ran.

`serve.batch` closes the next batch before the current one ends. Without a wait each call becomes a
batch of its own; with a wait a single call is delayed for no reason.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs a function on all calls that wait, in a thread, one batch at a time.

    Args:
        work: the results of a batch, in its order; an exception fails the whole batch.
        max_size: calls of a batch.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], max_size: int) -> None:
        self._work, self._max_size = work, max_size
        # The same thread for all batches: each thread allocates from its own arena, and the memory
        # of the last batch is still in the processor's caches.
        self._thread = ThreadPoolExecutor(1)
        self._waiting: asyncio.Queue[tuple[T, asyncio.Future[R]]] = asyncio.Queue()
        self._running = asyncio.ensure_future(self._run())

    async def __call__(self, item: T) -> R:
        """The result of an item."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, result))
        return await result

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Whoever does not wait any more needs no result.
            if batch := [(item, result) for item, result in batch if not result.done()]:
                await self._answer(batch)

    async def _answer(self, batch: Sequence[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            items = [item for item, _ in batch]
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._work, items
            )
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
