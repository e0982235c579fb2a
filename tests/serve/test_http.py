"""The endpoint over real HTTP: correct answers, clear errors, and the batch job's vectors."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeDeploySchema

from ampere.config.decode import DecodeSettings
from ampere.config.serve import ServeSettings
from ampere.models.model_folder import embedding_name
from ampere.records import SAMPLES
from ampere.retrieval.searcher import set_serving
from ampere.store.indexes import search_table
from ampere.store.models import model_folder
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from serve import embedder
from serve.app import SearchArgs, build_app
from serve.middleware import QUEUED, RUNNING
from serve.run import start, stop
from serve.searcher import SearcherDeployment
from tests.helpers.demo import DemoRun
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.processes import free_port
from tests.helpers.workspaces import embedding_model

pytestmark = pytest.mark.timeout(900)
MAX_UPLOAD_MB = 1


@pytest.fixture(scope="module")
def client(demo: DemoRun, local_ray: None) -> Iterator[httpx.Client]:
    settings = ServeSettings(port=free_port(), cpus=0.5, max_upload_mb=MAX_UPLOAD_MB)
    with httpx.Client(base_url=start(demo.workspace, settings), timeout=60) as client:
        yield client
    stop()


@pytest.fixture
def clip(demo: DemoRun) -> dict:
    return (
        demo.workspace.table(SAMPLES)
        .read(None, (pc.field("domain") == "live") & (pc.field("split") == "test"))
        .to_pylist()[0]
    )


def post(client: httpx.Client, path: str, media: bytes, **fields: object) -> httpx.Response:
    return client.post(path, files={"file": ("clip.mp4", media)}, data=fields)


def test_search_answers_per_domain_best_first(client: httpx.Client, clip: dict) -> None:
    media = Path(clip["media_uris"][0]).read_bytes()
    response = post(client, "/search", media, k=4, domains="", text="", domain="")
    assert response.status_code == 200
    answer = response.json()
    assert answer["results"].keys() == {"page", "short", "live"}
    for hits in answer["results"].values():
        assert all(hit["media"] and "/" not in hit["media"] for hit in hits)
        scores = [hit["score"] for hit in hits]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert answer["timing_ms"]["embed"] > 0


@pytest.mark.parametrize("domain", ["page", "short", "live"])
def test_search_of_chosen_domains(client: httpx.Client, clip: dict, domain: str) -> None:
    response = post(
        client, "/search", Path(clip["media_uris"][0]).read_bytes(), domains=domain, k=1
    )
    assert response.json()["results"].keys() == {domain}


def test_words_alone_find_the_page_of_their_product(
    client: httpx.Client, demo: DemoRun, clip: dict
) -> None:
    (words,) = texts_of(demo.workspace, "llm", [clip["sample_id"]]).to_pylist()
    answer = client.post("/search", data={"text": words, "k": 2}).json()["results"]
    assert answer["page"][0]["product_id"] == clip["product_id"]
    assert answer["live"][0]["text"] == words
    for nothing in ({}, {"text": " !? "}):
        response = client.post("/search", data={"k": 1} | nothing)
        assert response.status_code == 422 and "give a picture" in response.json()["detail"]


@pytest.mark.parametrize("domain", ["page", "short", "live"])
def test_served_vectors_equal_those_of_the_batch_job(
    client: httpx.Client, demo: DemoRun, domain: str
) -> None:
    workspace = demo.workspace
    for sample in (
        workspace.table(SAMPLES).read(None, pc.field("domain") == domain).slice(0, 3).to_pylist()
    ):
        name = embedding_name(model_folder(workspace, "ampere"))
        rows = embeddings_of(workspace, name).read(
            ["vector"], pc.field("sample_id") == sample["sample_id"]
        )
        stored = rows["vector"][0].as_py()
        (text,) = texts_of(workspace, "llm", [sample["sample_id"]]).to_pylist()
        fields = {"text": text} if text else {}
        answer = post(client, "/embed", Path(sample["media_uris"][0]).read_bytes(), **fields)
        np.testing.assert_allclose(answer.json()["vector"], stored, atol=1e-5)


def test_invalid_requests_get_clear_errors(client: httpx.Client, clip: dict) -> None:
    media = Path(clip["media_uris"][0]).read_bytes()
    junk = post(client, "/search", b"neither picture nor video")
    assert junk.status_code == 422 and "neither an image" in junk.json()["detail"]
    large = post(client, "/search", b"x" * (MAX_UPLOAD_MB * 2**20 + 1))
    assert large.status_code == 413 and "larger than 1 MB" in large.json()["detail"]
    assert post(client, "/search", media, k=0).status_code == 422
    assert post(client, "/search", media, domains="shop").status_code == 422
    assert client.post("/search").status_code == 422
    # The replica still works.
    assert post(client, "/search", media).status_code == 200


def test_text_with_an_unpaired_surrogate_is_rejected(client: httpx.Client) -> None:
    """A form in UTF-7 can contain one; the tokenizer would raise for the whole batch."""

    def post_form(*parts: str) -> httpx.Response:
        body = "".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
        headers = {"content-type": "multipart/form-data; boundary=b; charset=utf-7"}
        return client.post("/search", content=f"{body}--b--\r\n".encode(), headers=headers)

    text = post_form('name="text"\r\n\r\n+2AA-', 'name="file"; filename="a.jpg"\r\n\r\nx')
    assert text.status_code == 422 and "an unpaired surrogate" in text.json()["detail"]
    for part in ('name="file"; filename="+2AA-.jpg"\r\n\r\nx', 'name="domain"\r\n\r\n+2AA-'):
        response = post_form(part)
        assert response.status_code == 422 and response.json()["detail"]


def test_stalled_uploads_fill_the_queue_and_further_requests_get_503(
    client: httpx.Client,
) -> None:
    """Stalled uploads do not block other requests, and too many do not fill the memory."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nbegin'
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b"
    with ExitStack() as stack:

        def begin(count: int) -> list[socket.socket]:
            address = (client.base_url.host, client.base_url.port)
            sockets = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
            for upload in sockets:
                upload.sendall(head + b"\r\n\r\n" + part)
            return sockets

        uploads = begin(RUNNING + QUEUED)
        answered: list[socket.socket] = []
        while not answered and len(uploads) < 2 * (RUNNING + QUEUED):
            uploads += begin(1)
            answered, _, _ = select.select(uploads, [], [], 1)
        assert answered and all(upload.recv(100).startswith(b"HTTP/1.1 503") for upload in answered)
        assert client.get("/health", timeout=5).status_code == 200
    statuses = (post(client, "/embed", b"junk").status_code for _ in range(10_000))
    assert 422 in statuses, "the queue did not empty after the uploads were closed"


def test_methods_of_probes(client: httpx.Client) -> None:
    head = client.head("/health")
    assert (head.status_code, head.content) == (200, b"") and int(head.headers["content-length"])
    assert client.options("/search").headers["allow"] == "POST, OPTIONS"


def test_health_names_model_and_index(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["model"] == health["index"]["model"]
    assert health["model"].startswith("ampere@")


def test_frames_are_jpeg_and_unknown_ids_are_404(client: httpx.Client, clip: dict) -> None:
    response = client.get(f"/frames/{clip['sample_id']}")
    assert response.headers["content-type"] == "image/jpeg" and response.content[:2] == b"\xff\xd8"
    assert client.get("/frames/nothing").status_code == 404


def test_search_page_is_served(client: httpx.Client) -> None:
    assert "Which pages, shorts and lives show this product?" in client.get("/").text


def test_application_without_a_model_is_rejected(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="model 'ampere' not found"):
        build_app(SearchArgs(workspace=workspace.uri))


def test_config_file_is_valid_and_a_new_revision_restarts_the_application() -> None:
    """Ray restarts an application only if its code version differs."""
    text = (Path(__file__).parents[2] / "serve/config.yaml").read_text("utf-8")
    one, other = (
        ServeDeploySchema(
            **yaml.safe_load(text.replace('revision: "1"', f'revision: "{revision}"'))
        ).applications[0]
        for revision in (1, 2)
    )
    assert SearchArgs(**one.args).workspace == "/data/workspace"
    assert SearchArgs(**other.args).revision == "2"
    assert get_app_code_version(one) != get_app_code_version(other)


@pytest.fixture
def retrained(workspace: Workspace) -> tuple[Workspace, str]:
    """A workspace whose index of model `m` is of weights `m@old`, and the name of its weights."""
    name = embedding_name(embedding_model(workspace))
    write_embeddings(workspace, "m@old", [{"sample_id": "s", "vector": [1.0]}])
    set_serving(search_table(workspace, "m@old"), 1)
    return workspace, name


def test_application_with_an_index_of_other_weights_is_rejected(
    retrained: tuple[Workspace, str],
) -> None:
    workspace, name = retrained
    error = f"no embeddings of model weights {name}.*`ampere embed .*`ampere index"
    with pytest.raises(FileNotFoundError, match=error):
        build_app(SearchArgs(workspace=workspace.uri, model="m"))
    with pytest.raises(FileNotFoundError, match=error):
        SearcherDeployment.func_or_class(workspace.uri, name, 0, 1)


def test_embedder_that_starts_after_a_new_training_is_rejected(
    retrained: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The searchers hold vectors of the weights with which the endpoint started."""
    workspace, name = retrained
    monkeypatch.setattr(
        "ampere.models.embedder.Embedder", lambda *_: SimpleNamespace(name="m@later")
    )
    with pytest.raises(
        ValueError, match=f"model weights of m changed: expected m@old, found {name}"
    ):
        embedder.EmbedderDeployment.func_or_class(
            workspace.uri, "m", "m@old", DecodeSettings(), "cpu"
        )
    with pytest.raises(
        ValueError, match=f"model weights of m changed: expected {name}, found m@later"
    ):
        embedder.EmbedderDeployment.func_or_class(workspace.uri, "m", name, DecodeSettings(), "cpu")
