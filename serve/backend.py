"""The deployments behind a gateway: one pair of embedder and searcher for each model."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from ampere.retrieval.search import SearchAnswer
from ampere.store.serving import ServedModel, served_model
from ampere.store.workspace import Workspace
from serve.embedder import EmbedCall, EmbedItem, Refused, Vectors
from serve.followed_value import FollowedValue
from serve.problems import Problem
from serve.remote import answer_of
from serve.served_index import Facets, SearchCall
from serve.weights import UnknownWeights

T = TypeVar("T")
POLL_S = 1.0
ATTEMPTS, PAUSE_S = 3, 0.05
# What a call raises whose replica died, or that finds none.
DEAD = (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError, BackPressureError)
logger = logging.getLogger("ray.serve")


class Handle(Protocol):
    """What a gateway needs of a deployment; `ray.serve`'s handles have it."""

    def __getattr__(self, name: str) -> Any:
        """A method, called by `.remote(...)`."""


class LocalHandle:
    """Calls an object of this process like a deployment: without the hop, which takes 1.6 ms.

    Args:
        held: has async methods of one argument.
    """

    def __init__(self, held: object) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        """A method, called by `.remote(...)`."""
        return SimpleNamespace(remote=getattr(self._held, name))


class ServedPair:
    """A model's deployments, asked for weights that both have loaded.

    Args:
        workspace: with the model.
        model: its name.
        embedder, searcher: handles of the deployments; of the index in this process, a
            `LocalHandle`.
    """

    def __init__(
        self, workspace: Workspace, model: str, embedder: Handle, searcher: Handle
    ) -> None:
        self.model = model
        self.embedder, self.searcher = embedder, searcher
        self._newest = FollowedValue(
            lambda: served_model(workspace, model), f"the served weights of {model}"
        )
        self.served = [self._newest.value]  # the newest first
        self._frames: dict[str, int] = {}

    @property
    def newest(self) -> ServedModel:
        """The weights that are to be served."""
        return self.served[0]

    async def with_same_weights(self, ask: Callable[[ServedModel], Awaitable[T]]) -> T:
        """Ask with the newest weights, or with those before while a replica has no others.

        Args:
            ask: all calls of one request; raises `NotLoaded` if a replica lacks the weights.

        Raises:
            Problem: 503, no replica has any weights that this gateway knows of.
        """
        await self._look()
        for served in list(self.served):
            try:
                return await ask(served)
            except NotLoaded:
                continue
        raise Problem(503, "starting.model", retry_after_s=2, model=self.model)

    async def embed(self, served: ServedModel, items: tuple[EmbedItem, ...]) -> Vectors:
        """The vectors of some items, float32 [items, D].

        Raises:
            Problem: the model cannot embed them.
            NotLoaded: the replica lacks the weights.
        """
        return checked(await answered(self.embedder.embed, EmbedCall(served.name, items)))

    async def search(self, call: SearchCall) -> SearchAnswer:
        """The hits of a request.

        Raises:
            Problem: the request does not fit the table.
            NotLoaded: the replica lacks the weights.
        """
        return checked(await answered(self.searcher.search, call))

    async def facets(self, call: SearchCall) -> Facets:
        """Counts by the values of columns, and the version of the table.

        Raises:
            Problem: the request does not fit the table.
            NotLoaded: the replica lacks the weights.
        """
        return checked(await answered(self.searcher.facets, call))

    async def frames(self, served: ServedModel) -> int:
        """Frames of a clip that the model reads."""
        if served.name not in self._frames:
            count = await answered(self.embedder.number_of_frames, served.name)
            self._frames[served.name] = checked(count)
        return self._frames[served.name]

    async def stats(self, served: ServedModel) -> dict[str, Any]:
        """What the searcher says of its index."""
        return checked(await answered(self.searcher.stats, served.name))

    async def _look(self) -> None:
        """See once a second which weights are to be served."""
        served = await self._newest.get(POLL_S)
        if served.name != self.newest.name:
            before = [other for other in self.served if other.name != served.name]
            self.served = [served, *before][:2]


class NotLoaded(Exception):
    """A replica has not loaded the weights of a request."""


async def answered(method: Any, argument: Any) -> Any:
    """The answer of a replica; of another one if it dies meanwhile.

    All calls are read only, so that they may be made again.

    Raises:
        Problem: 503, there is no replica that answers.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await answer_of(method.remote(argument))
        except DEAD as error:
            failure = error
            await asyncio.sleep(PAUSE_S * attempt)
    logger.warning("no replica answered %d times: %s", ATTEMPTS, failure)
    raise Problem(503, "starting", retry_after_s=1)


def checked(answer: Any) -> Any:
    """The answer of a deployment.

    Raises:
        Problem: it refused.
        NotLoaded: it lacks the weights.
    """
    if isinstance(answer, UnknownWeights):
        raise NotLoaded(answer.name)
    if isinstance(answer, Refused):
        code = "request.invalid" if answer.status == 422 else "request.refused"
        raise Problem(answer.status, code, reason=answer.detail)
    return answer


class Backend:
    """All models that are served.

    Args:
        pairs: by name; the first is the one that requests get by default.
    """

    def __init__(self, pairs: Mapping[str, ServedPair]) -> None:
        self.pairs = dict(pairs)

    def pair(self, model: str | None) -> ServedPair:
        """The deployments of a model.

        Raises:
            Problem: 422, it is not served.
        """
        if model is None:
            return next(iter(self.pairs.values()))
        if model not in self.pairs:
            served = ", ".join(self.pairs)
            raise Problem(422, "model.unknown", model=repr(model[:100]), served=served)
        return self.pairs[model]
