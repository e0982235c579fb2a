"""The cache of queries, the pool of isolated processes, and models that change while served."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError

from ampere.media.decoder import MediaError
from ampere.records import Domain
from ampere.store.serving import ServedModel, publish_weights, served_folder, served_model
from ampere.store.workspace import Workspace
from serve import backend, weights
from serve.backend import LocalHandle, NotLoaded, ServedPair, answered
from serve.decode_pool import DecodePool
from serve.problems import Problem
from serve.query_cache import Embedded, QueryCache
from serve.weights import FollowedModel, UnknownWeights
from tests.helpers.workspaces import embedding_model


def test_cache_forgets_the_query_that_was_used_longest_ago() -> None:
    cache = QueryCache(2)
    entries = [Embedded({"file": np.full(2, n, np.float32)}, Domain.PAGE) for n in range(3)]
    cache.put("a", entries[0]), cache.put("b", entries[1])
    assert cache.get("a") is entries[0]
    cache.put("c", entries[2])
    assert cache.get("b") is None and cache.get("a") is entries[0] and cache.get("c") is entries[2]
    assert (cache.hits, cache.misses) == (3, 1)
    none = QueryCache(0)
    none.put("a", entries[0])
    assert none.get("a") is None


@pytest.mark.slow
def test_process_that_dies_is_replaced_and_others_go_on() -> None:
    async def scene() -> None:
        pool = DecodePool(2, time_limit_s=20, memory_limit_gb=1)
        await pool.warm_up()
        first, second = await asyncio.gather(pool.call(os.getpid), pool.call(os.getpid))
        assert len({first, second, os.getpid()}) == 3
        os.kill(first, signal.SIGKILL)
        again = await asyncio.gather(*(pool.call(os.getpid) for _ in range(6)))
        assert first not in again and second in again and len(set(again)) == 2
        with pytest.raises(MediaError, match="ValueError"):
            await pool.call(int, "x")
        assert await pool.call(len, "abc") == 3
        pool.close()

    asyncio.run(scene())


def changed_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("other weights")


def test_served_weights_stay_while_the_model_is_trained_again(workspace: Workspace) -> None:
    folder = embedding_model(workspace)
    with pytest.raises(FileNotFoundError, match="has no index of model m; run `ampere embed"):
        served_model(workspace, "m")
    first = publish_weights(workspace, "m")
    changed_weights(folder)
    assert served_model(workspace, "m") == first
    assert (served_folder(workspace, first.name) / "model.safetensors").read_text() == "weights"
    second = publish_weights(workspace, "m")
    assert served_model(workspace, "m") == second != first and second.reads_text


def test_new_weights_are_loaded_beside_the_old_ones_which_go_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedding_model(workspace)
    first = publish_weights(workspace, "m")
    gone: list[str] = []

    async def scene() -> None:
        followed = FollowedModel(workspace, "m", lambda served: served.name, gone.append)
        assert followed.get(first.name) == first.name
        changed_weights(folder)
        second = publish_weights(workspace, "m")
        assert followed.get(second.name) == UnknownWeights(second.name, (first.name,))
        await followed.refresh()
        assert followed.get(second.name) == second.name == followed.newest
        assert followed.get(first.name) == first.name and not gone
        (folder / "model.safetensors").write_text("weights")
        assert publish_weights(workspace, "m") == first  # back to weights that are still loaded
        await followed.refresh()
        assert followed.newest == first.name
        changed_weights(folder)
        publish_weights(workspace, "m")
        monkeypatch.setattr(weights, "KEEP_S", -1.0)
        await followed.refresh()
        assert gone == [first.name]
        assert followed.get(first.name) == UnknownWeights(first.name, (second.name,))

    asyncio.run(scene())


def test_request_never_mixes_weights_and_falls_back_while_a_replica_loads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedding_model(workspace)
    first = publish_weights(workspace, "m")
    monkeypatch.setattr(backend, "POLL_S", -1.0)

    async def scene() -> None:
        pair = ServedPair(workspace, "m", embedder=object(), searcher=object())  # type: ignore[arg-type]
        changed_weights(folder)
        second = publish_weights(workspace, "m")
        loaded = {"embedder": {first.name, second.name}, "searcher": {first.name}}
        asked: list[tuple[str, str]] = []

        async def ask(served: ServedModel) -> str:
            for part, names in loaded.items():
                asked.append((part, served.name))
                if served.name not in names:
                    raise NotLoaded(served.name)
            return served.name

        assert await pair.with_same_weights(ask) == first.name
        assert asked == [
            ("embedder", second.name),
            ("searcher", second.name),
            ("embedder", first.name),
            ("searcher", first.name),
        ]
        loaded["searcher"].add(second.name)
        assert await pair.with_same_weights(ask) == second.name
        loaded["embedder"].clear()
        with pytest.raises(Problem, match="model m is loading") as caught:
            await pair.with_same_weights(ask)
        assert caught.value.status == 503 and caught.value.retry_after_s == 2

    asyncio.run(scene())


def test_object_of_this_process_is_called_like_a_deployment() -> None:
    class Held:
        """Has a method as a deployment has."""

        async def search(self, call: str) -> str:
            return call.upper()

    assert asyncio.run(answered(LocalHandle(Held()).search, "x")) == "X"


def test_call_goes_to_another_replica_if_one_dies() -> None:
    class Method:
        """A deployment's method whose first replicas are dead."""

        def __init__(self, dead: int) -> None:
            self.dead, self.calls = dead, 0

        async def remote(self, argument: str) -> str:
            self.calls += 1
            if self.calls <= self.dead:
                raise ActorUnavailableError("gone", None)
            return argument

    assert asyncio.run(answered(Method(dead=2), "x")) == "x"
    with pytest.raises(Problem, match="is starting; try again") as caught:
        asyncio.run(answered(Method(dead=3), "x"))
    assert caught.value.status == 503 and caught.value.retry_after_s == 1
