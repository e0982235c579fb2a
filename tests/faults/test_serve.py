"""The endpoint: probes beside stalled uploads, methods of probes, blank fields, no paths."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, UploadFile

from ampere.cli import main
from ampere.records import Domain
from ampere.retrieval.search import Hit
from ampere.store.workspace import Workspace
from serve import middleware
from serve.gateway import ONGOING, answer_of, without_empty
from serve.middleware import OtherOrigins, ProbeMethods, UploadLimit, Uploads

FORM = {"content-type": "multipart/form-data; boundary=b", "content-length": "900"}
BEGIN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nbegin'


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """A small application behind the endpoint's middleware; two uploads run and one waits."""
    api = FastAPI()
    api.add_middleware(UploadLimit)
    api.add_middleware(ProbeMethods)
    api.add_middleware(OtherOrigins, allow_methods=("GET", "POST"))

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.post("/search")
    async def search(file: UploadFile) -> int:
        return len(await file.read())

    monkeypatch.setattr(middleware, "RUNNING", 2)
    monkeypatch.setattr(middleware, "QUEUED", 1)
    gateway = SimpleNamespace(max_upload_mb=1, uploads=Uploads(), origins=["https://shop.example"])
    monkeypatch.setattr(middleware, "gateway", lambda: gateway)
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://endpoint")


def answer(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    return asyncio.run(client.request(method, path, **more))


def test_head_is_answered_without_a_body(client: httpx.AsyncClient) -> None:
    head, get = answer(client, "HEAD", "/health"), answer(client, "GET", "/health")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == "15"
    assert answer(client, "HEAD", "/none").status_code == 404


def test_options_name_the_methods_of_a_path(client: httpx.AsyncClient) -> None:
    options = answer(client, "OPTIONS", "/health")
    assert (options.status_code, options.content) == (200, b"")
    assert options.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer(client, "OPTIONS", "/search").headers["allow"] == "POST, OPTIONS"
    assert answer(client, "OPTIONS", "/none").status_code == 404


def test_pages_of_the_named_origins_alone_may_ask(client: httpx.AsyncClient) -> None:
    def preflight(origin: str) -> httpx.Response:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return answer(client, "OPTIONS", "/search", headers=headers)

    allowed = preflight("https://shop.example")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert preflight("https://other.example").status_code == 400


def status(command: list[str]) -> int:
    """Exit status of `ampere COMMAND`, returned or raised as SystemExit."""
    try:
        return main(command)
    except SystemExit as left:
        return int(left.code or 0)


async def stalled() -> Any:
    yield BEGIN
    await asyncio.Event().wait()


def upload(client: httpx.AsyncClient, content: Any) -> "asyncio.Task[httpx.Response]":
    request = client.post("/search", headers=FORM, content=content, timeout=None)
    return asyncio.create_task(request)


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_probes_answer_while_uploads_stall_and_further_uploads_get_503(
    client: httpx.AsyncClient,
) -> None:
    async def scene() -> None:
        uploads = [upload(client, stalled()) for _ in range(3)]
        await settle()
        assert not any(task.done() for task in uploads)
        for method in ("GET", "HEAD"):
            assert (await client.request(method, "/health")).status_code == 200
        full = await client.post("/search", files={"file": b"x"})
        assert full.status_code == 503 and "try again later" in full.json()["detail"]
        for task in uploads:
            task.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        assert (await client.post("/search", files={"file": b"x"})).json() == 1

    asyncio.run(scene())


def test_stalled_upload_is_ended(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "IDLE_S", 0.01)
    ended = answer(client, "POST", "/search", headers=FORM, content=stalled())
    assert ended.status_code == 408 and "no data of the upload for" in ended.json()["detail"]


def test_draining_answers_the_uploads_in_progress_and_refuses_others(
    client: httpx.AsyncClient,
) -> None:
    async def scene() -> None:
        rest = asyncio.Event()

        async def slow() -> Any:
            yield BEGIN
            await rest.wait()
            yield b"\r\n--b--\r\n"

        first = upload(client, slow())
        await settle()
        drained = asyncio.create_task(middleware.gateway().uploads.drain())
        await settle()
        assert (await client.post("/search", files={"file": b"x"})).status_code == 503
        assert not drained.done()
        rest.set()
        assert (await first).json() == len("begin")
        await drained

    asyncio.run(scene())


def test_serve_has_more_places_than_the_pool_of_uploads() -> None:
    assert ONGOING > 2 * (middleware.RUNNING + middleware.QUEUED)


def test_blank_domains_count_as_not_given() -> None:
    assert without_empty([""]) == [] and without_empty(["page", ""]) == ["page"]
    assert without_empty(None) is None


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/srv/shop/pages/云岚.jpg", "云岚.jpg"),
        ("s3://bucket/pages/a%20b.jpg", "a%20b.jpg"),
        ("https://cdn/a.mp4?signature=a/b", "a.mp4"),
        (None, None),
    ],
)
def test_answers_have_no_paths_of_the_server(uri: str | None, name: str | None) -> None:
    hit = Hit(
        sample_id="a", product_id=None, domain=Domain.PAGE, score=0.5, text=None, media_uri=uri
    )
    assert answer_of(hit) == {
        "sample_id": "a",
        "product_id": None,
        "score": 0.5,
        "text": None,
        "media": name,
        "moment": None,
    }


@pytest.mark.parametrize("port", ["80000", "0", "-1", "65536"])
def test_ports_out_of_range_are_refused(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    for command in (
        ["serve", "--workspace", workspace.uri, "--serve.port", port],
        ["demo", "--folder", f"{workspace.uri}/demo", "--port", port],
    ):
        assert status(command) == 2
        assert f"is {port}; expected a TCP port, 1 to 65535" in capsys.readouterr().err
