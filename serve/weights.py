"""Models that change while they are served: the new weights are loaded beside the old ones.

Serve's own `reconfigure` would take replicas away while they load (ray#54509), so each replica
looks for the weights to serve by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ampere.store.serving import ServedModel, served_model
from ampere.store.workspace import Workspace

T = TypeVar("T")
POLL_S = 2.0
KEEP_S = 600.0  # earlier weights stay this long, since other replicas may still be loading
logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class UnknownWeights:
    """The answer of a replica that has not loaded the weights that a request names.

    Attributes:
        name: of the weights.
        loaded: those that it has, the newest last.
    """

    name: str
    loaded: tuple[str, ...]


class FollowedModel(Generic[T]):
    """What a replica holds of a model: one value for each of its weights that may be asked for.

    Args:
        workspace: with the model.
        model: its name.
        load: makes the value for some weights; runs in a thread and may take minutes.
        unload: called in a thread with a value that is not needed any more.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: str,
        load: Callable[[ServedModel], T],
        unload: Callable[[T], object] = lambda _: None,
    ) -> None:
        self._workspace, self._model = workspace, model
        self._load, self._unload = load, unload
        served = served_model(workspace, model)
        self._values: dict[str, T] = {served.name: load(served)}
        self._served, self._loaded_at = served.name, time.monotonic()

    def get(self, name: str) -> T | UnknownWeights:
        """The value of some weights; also from another thread than that of `follow`."""
        try:
            return self._values[name]
        except KeyError:
            return UnknownWeights(name, tuple(self._values))

    @property
    def newest(self) -> T:
        """The value of the weights that are to be served."""
        return self._values[self._served]

    async def follow(self) -> None:
        """Load new weights as they are published; never returns."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception:  # the next look may succeed; until then the last weights are served
                logger.exception("model %s: cannot load its new weights", self._model)

    async def refresh(self) -> None:
        """Load the weights that are to be served, if they are not loaded; drop those long gone."""
        served = await asyncio.to_thread(served_model, self._workspace, self._model)
        if served.name not in self._values:
            value = await asyncio.to_thread(self._load, served)
            self._values[served.name] = value
            self._loaded_at = time.monotonic()
        self._served = served.name
        if len(self._values) > 1 and time.monotonic() - self._loaded_at > KEEP_S:
            for name in [name for name in self._values if name != served.name]:
                await asyncio.to_thread(self._unload, self._values.pop(name))
