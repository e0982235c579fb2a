"""What keeps the endpoint up: limits of uploads, of batches and of ports."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException

from ampere.config.serve import ServeSettings
from ampere.media.decoder import MediaError
from ampere.records import FRAMES
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from serve.embedder import EmbedderDeployment, Query
from serve.gateway import FORM_BYTES, Gateway, UploadLimit
from serve.run import refuse_taken, start

MB = 2**20


Send = Callable[..., int]


@pytest.fixture
def read_of(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends a body through the middleware, half a megabyte a chunk, under a limit of one; returns the bytes read."""
    replica = SimpleNamespace(servable_object=SimpleNamespace(max_upload_mb=1))
    monkeypatch.setattr("serve.gateway.serve.get_replica_context", lambda: replica)

    def run(chunks: int, headers: Sequence[tuple[bytes, bytes]] = (), *, refused: bool) -> int:
        read = 0

        async def receive() -> dict[str, Any]:
            nonlocal read
            read += MB // 2
            return {
                "type": "http.request",
                "body": bytes(MB // 2),
                "more_body": read < chunks * MB // 2,
            }

        async def app(scope: object, receive: Callable[[], Any], send: object) -> None:
            while (await receive())["more_body"]:
                pass

        told = (
            pytest.raises(HTTPException, match="413: the file is larger than 1 MB")
            if refused
            else nullcontext()
        )
        with told:
            asyncio.run(UploadLimit(app)({"type": "http", "headers": headers}, receive, None))
        return read

    return run


def test_a_body_is_refused_where_it_crosses_the_limit_and_not_read_on(read_of: Send) -> None:
    assert read_of(2, refused=False) == MB
    assert read_of(4, refused=False) == MB + FORM_BYTES
    assert read_of(1000, refused=True) == MB + FORM_BYTES + MB // 2


def test_a_body_that_says_how_long_it_is_is_refused_at_once(read_of: Send) -> None:
    assert read_of(1000, [(b"content-length", str(500 * MB).encode())], refused=True) == MB // 2


@pytest.fixture
def deployment() -> Any:
    """The embedding deployment without its model: it embeds `good`, and raises on `bad` as a tokenizer would."""

    def embed(frames: list[list[bytes]], texts: list[str], domains: list[object]) -> np.ndarray:
        if "bad" in texts:
            raise TypeError("no text")
        return np.full((len(frames), 2), len(frames), np.float32)

    def call(function: object, media: bytes, decode: object, domain: object) -> list[bytes]:
        if media == b"junk":
            raise MediaError("neither an image nor a video")
        if media == b"break":
            raise OSError("no process can be started")
        return [media]

    made = object.__new__(EmbedderDeployment.func_or_class)
    made.embedder, made.process, made.decode = (
        SimpleNamespace(embed=embed),
        SimpleNamespace(call=call),
        None,
    )
    return made


def test_a_query_that_fails_costs_no_other_its_answer(deployment: Any) -> None:
    queries = [(b"a", "good"), (b"junk", "good"), (b"b", "bad"), (b"break", "good"), (b"c", "good")]
    answers = deployment._embed([Query(*query) for query in queries])
    assert [answer.vector for answer in answers] == [[1, 1], None, None, None, [1, 1]]
    assert [answer.status for answer in answers if answer.error] == [422, 500, 500]
    assert answers[2].error == "TypeError: no text" and "no process" in answers[3].error
    together = deployment._embed([Query(b"a", "good"), Query(b"c", "good")])
    assert [answer.vector for answer in together] == [[2, 2], [2, 2]]  # in one pass


def test_a_port_that_somebody_listens_on_is_refused_even_if_it_could_be_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            RuntimeError, match=f"port {port} of 127.0.0.1 cannot be had .*--serve.port"
        ):
            refuse_taken("127.0.0.1", port)
    refuse_taken("127.0.0.1", port)


def test_frames_that_were_decoded_since_are_shown(workspace: Workspace, tmp_path: Path) -> None:
    def frames_of(sample_id: str) -> dict[str, object]:
        return {
            "sample_id": sample_id,
            "frames": [b"jpeg of " + sample_id.encode()],
            "timestamps_s": [0.0],
        }

    workspace.table(FRAMES).append([frames_of("a/1")])
    gateway = bare_gateway(workspace)
    assert gateway._first_frame("a/1") == b"jpeg of a/1"
    workspace.table(FRAMES).append([frames_of("b")])
    assert gateway._first_frame("b") == b"jpeg of b"
    with pytest.raises(KeyError):
        gateway._first_frame("c")


def bare_gateway(workspace: Workspace, embedder: object = None) -> Any:
    """A gateway outside of Ray: the class without what Serve puts around it."""
    own = next(base for base in Gateway.func_or_class.__mro__ if "_first_frame" in vars(base))
    plain = type("Gateway", (), {name: what for name, what in vars(own).items() if callable(what)})
    return plain(embedder, [], workspace.uri, 1, {"model": "m"})


def test_ids_of_frames_are_read_once_for_a_version_however_many_ask_at_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten million they take a gigabyte; every unknown id read them again, in each of forty threads."""
    workspace.table(FRAMES).append([{"sample_id": "a", "frames": [b"jpeg"], "timestamps_s": [0.0]}])
    gateway, reads = bare_gateway(workspace), []
    dataset = LanceFrames.dataset
    monkeypatch.setattr(
        LanceFrames, "dataset", lambda self: reads.append(self.version) or dataset(self)
    )

    def ask(name: str) -> bool:
        try:
            return gateway._first_frame(name) == b"jpeg"
        except KeyError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, ["a"] * 4 + ["gone"] * 4)) == 4
    assert len(reads) == 1 + 4  # the ids once, and the row of each that is there


def test_health_does_not_wait_behind_uploads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.table(FRAMES).append([{"sample_id": "a", "frames": [b"jpeg"], "timestamps_s": [0.0]}])
    monkeypatch.setattr("serve.gateway.HEALTH_WAIT_S", 0.01)

    async def never() -> str:
        await asyncio.Event().wait()
        return "unreachable"

    gateway = bare_gateway(workspace, SimpleNamespace(model_name=SimpleNamespace(remote=never)))
    assert asyncio.run(gateway.health()) == {"status": "busy", "model": "m"}


def test_an_endpoint_that_another_one_serves_from_is_not_replaced(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.run.connect", lambda: None)
    monkeypatch.setattr("serve.run.require_gpus", lambda *_: None)
    monkeypatch.setattr("serve.app.build_app", lambda _: None)
    monkeypatch.setattr(
        "ray.serve.status", lambda: SimpleNamespace(applications={"ampere": "RUNNING"}, proxies={})
    )
    with pytest.raises(
        RuntimeError,
        match="serves an application 'ampere' already, which would be replaced; stop it",
    ):
        start(workspace, ServeSettings())
