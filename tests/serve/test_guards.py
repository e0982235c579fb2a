"""What protects the endpoint: limits on uploads, queries that fail alone, and port checks."""

import asyncio
import logging
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
from ampere.store.workspace import Workspace
from serve.embedder import EmbedderDeployment, Query
from serve.gateway import Gateway
from serve.middleware import FORM_BYTES, UploadLimit, Uploads
from serve.run import check_port, start

MB = 2**20


Send = Callable[..., int]


@pytest.fixture
def read_of(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends a body in chunks of 0.5 MB through the middleware with a limit of 1 MB.

    Returns:
        A function that returns the number of bytes read.
    """
    gateway = SimpleNamespace(max_upload_mb=1, uploads=Uploads())
    monkeypatch.setattr("serve.middleware.gateway", lambda: gateway)

    def run(chunks: int, headers: Sequence[tuple[bytes, bytes]] = (), *, rejected: bool) -> int:
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

        too_large = pytest.raises(HTTPException, match="413: the file is larger than 1 MB")
        with too_large if rejected else nullcontext():
            scope = {"type": "http", "method": "POST", "headers": headers}
            asyncio.run(UploadLimit(app)(scope, receive, None))
        return read

    return run


def test_body_is_not_read_beyond_the_limit(read_of: Send) -> None:
    assert read_of(2, rejected=False) == MB
    assert read_of(4, rejected=False) == MB + FORM_BYTES
    assert read_of(1000, rejected=True) == MB + FORM_BYTES + MB // 2


def test_body_with_a_too_large_content_length_is_rejected_at_once(read_of: Send) -> None:
    assert read_of(1000, [(b"content-length", str(500 * MB).encode())], rejected=True) == MB // 2


@pytest.fixture
def deployment() -> Any:
    """The embedding deployment with a stub model that fails on the text `bad`."""

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

    stub = object.__new__(EmbedderDeployment.func_or_class)
    stub.embedder, stub.process = SimpleNamespace(embed=embed), SimpleNamespace(call=call)
    stub.decode = None
    return stub


def test_failed_query_does_not_affect_the_others(
    deployment: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.embedder.logger", logging.getLogger("embedder"))
    queries = [(b"a", "good"), (b"junk", "good"), (b"b", "bad"), (b"break", "good"), (b"c", "good")]
    answers = deployment._embed([Query(*query) for query in queries])
    assert [answer.vector for answer in answers] == [[1, 1], None, None, None, [1, 1]]
    assert [answer.status for answer in answers if answer.error] == [422, 500, 500]
    # Without the message, which may have a path of the server.
    assert answers[2].error == "TypeError on the server; see its log"
    assert answers[3].error == "OSError on the server; see its log"
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors == ["no process can be started", "no text"]  # server errors alone are logged
    together = deployment._embed([Query(b"a", "good"), Query(b"c", "good")])
    assert [answer.vector for answer in together] == [[2, 2], [2, 2]]  # one batch


def test_port_in_use_is_rejected_even_if_it_could_be_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"cannot bind 127.0.0.1:{port} .*--serve.port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_frames_decoded_after_the_start_are_served(workspace: Workspace, tmp_path: Path) -> None:
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
    """A gateway without Ray: the plain class inside Serve's wrappers."""
    own = next(base for base in Gateway.func_or_class.__mro__ if "_first_frame" in vars(base))
    plain = type(
        "Gateway", (), {name: member for name, member in vars(own).items() if callable(member)}
    )
    return plain(embedder, [], workspace.uri, 1, {"model": "m"})


def test_unknown_ids_do_not_reopen_the_frames(workspace: Workspace) -> None:
    """A version that was just opened has nothing of the index in memory."""
    workspace.table(FRAMES).append([{"sample_id": "a", "frames": [b"jpeg"], "timestamps_s": [0.0]}])
    gateway = bare_gateway(workspace)
    opened = gateway.frames

    def is_served(name: str) -> bool:
        try:
            return gateway._first_frame(name) == b"jpeg"
        except KeyError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(is_served, ["a"] * 4 + ["gone"] * 4)) == 4
    assert gateway.frames is opened


def test_health_answers_busy_while_the_embedder_does_not_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.table(FRAMES).append([{"sample_id": "a", "frames": [b"jpeg"], "timestamps_s": [0.0]}])

    async def never() -> str:
        await asyncio.Event().wait()
        return "unreachable"

    gateway = bare_gateway(workspace, SimpleNamespace(model_name=SimpleNamespace(remote=never)))
    # Serve's ingress copies the class, so that the names of the module are not those it reads.
    monkeypatch.setitem(type(gateway).health.__globals__, "HEALTH_WAIT_S", 0.01)
    assert asyncio.run(gateway.health()) == {"status": "busy", "model": "m"}


def test_running_endpoint_of_the_cluster_is_not_replaced(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.run.connect", lambda *_: None)
    monkeypatch.setattr("serve.run.proxy_runs", lambda: True)
    monkeypatch.setattr("serve.app.build_app", lambda _: None)
    monkeypatch.setattr(
        "ray.serve.status", lambda: SimpleNamespace(applications={"ampere": "RUNNING"}, proxies={})
    )
    with pytest.raises(
        RuntimeError,
        match="already serves an application 'ampere', which a second start would replace. Stop",
    ):
        start(workspace, ServeSettings())
