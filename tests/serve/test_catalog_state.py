"""The coverage that the page shows: one look for all who ask, also for those who come later."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ampere.store.workspace import Workspace
from serve import catalog_state
from serve.backend import ServedPair
from serve.catalog_state import CoverageCache


def pair(model: str = "m", name: str = "m@1") -> ServedPair:
    return cast(ServedPair, SimpleNamespace(model=model, newest=SimpleNamespace(name=name)))


class Looks:
    """Stands for looks at a large catalog; each waits until it may end."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.may_end = threading.Event()
        self.error: Exception | None = None

    def __call__(self, workspace: Workspace, model: str, *, name: str, **_: Any) -> str:
        self.names.append(name)
        assert self.may_end.wait(30)
        if self.error:
            raise self.error
        return f"coverage of {name}"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(catalog_state, "find_coverage", looks)
    return looks


def shown(coverage: Any) -> dict[str, Any]:
    return {"shown": coverage}


def test_look_outlives_the_request_that_began_it(workspace: Workspace, looks: Looks) -> None:
    async def scene() -> None:
        cache = CoverageCache(workspace)
        for _ in range(3):  # requests that end before the look does
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await cache.get(pair(), shown)
        both = asyncio.gather(cache.get(pair(), shown), cache.get(pair("n", "n@1"), shown))
        looks.may_end.set()
        assert await both == [{"shown": "coverage of m@1"}, {"shown": "coverage of n@1"}]
        assert await cache.get(pair(), shown) == {"shown": "coverage of m@1"}
        assert looks.names == ["m@1", "n@1"]

    asyncio.run(scene())


def test_new_weights_old_answers_and_errors_need_another_look(
    workspace: Workspace, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks.may_end.set()

    async def scene() -> None:
        cache = CoverageCache(workspace)
        looks.error = OSError("the store does not answer")
        with pytest.raises(OSError, match="does not answer"):
            await cache.get(pair(), shown)
        looks.error = None
        for name in ("m@1", "m@1", "m@2"):
            await cache.get(pair(name=name), shown)
        assert looks.names == ["m@1", "m@1", "m@2"]
        monkeypatch.setattr(catalog_state, "KEEP_S", 0.0)
        await cache.get(pair(name="m@2"), shown)
        assert looks.names[3:] == ["m@2"]

    asyncio.run(scene())
