"""The endpoint over real HTTP: right answers, clear refusals, and the same vectors as the batch job."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import yaml
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeDeploySchema

from ampere.config.decode import DecodeSettings
from ampere.config.serve import ServeSettings
from ampere.models.model_folder import embedding_name
from ampere.records import EMBEDDINGS, SAMPLES
from ampere.store.texts import sample_texts
from ampere.store.workspace import Workspace
from serve import embedder
from serve.app import SearchArgs, build_app
from serve.gateway import ONGOING, QUEUED
from serve.run import start, stop
from serve.searcher import SearcherDeployment
from tests.helpers.demo import DemoRun
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
        .read(None, "domain = 'live' AND split = 'test'")
        .to_pylist()[0]
    )


def post(client: httpx.Client, path: str, media: bytes, **fields: object) -> httpx.Response:
    return client.post(path, files={"file": ("clip.mp4", media)}, data=fields)


def test_search_answers_per_domain_best_first(client: httpx.Client, clip: dict) -> None:
    response = post(client, "/search", Path(clip["media_uris"][0]).read_bytes(), k=4)
    assert response.status_code == 200
    answer = response.json()
    assert answer["results"].keys() == {"page", "short", "live"}
    for hits in answer["results"].values():
        scores = [hit["score"] for hit in hits]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert answer["timing_ms"]["embed"] > 0


@pytest.mark.parametrize("domain", ["page", "short", "live"])
def test_search_of_chosen_domains(client: httpx.Client, clip: dict, domain: str) -> None:
    response = post(
        client, "/search", Path(clip["media_uris"][0]).read_bytes(), domains=domain, k=1
    )
    assert response.json()["results"].keys() == {domain}


@pytest.mark.parametrize("domain", ["page", "short", "live"])
def test_serving_gives_the_vectors_of_the_batch_job(
    client: httpx.Client, demo: DemoRun, domain: str
) -> None:
    workspace = demo.workspace
    texts = sample_texts(workspace, "llm")
    for sample in (
        workspace.table(SAMPLES).read(None, f"domain = '{domain}'").slice(0, 3).to_pylist()
    ):
        stored = (
            workspace.table(EMBEDDINGS)
            .read(["vector"], f"sample_id = '{sample['sample_id']}' AND model LIKE 'ampere@%'")[
                "vector"
            ][0]
            .as_py()
        )
        fields = {"text": texts[sample["sample_id"]]} if texts[sample["sample_id"]] else {}
        answer = post(client, "/embed", Path(sample["media_uris"][0]).read_bytes(), **fields)
        np.testing.assert_allclose(answer.json()["vector"], stored, atol=1e-5)


def test_refusals_say_what_came_and_what_is_expected(client: httpx.Client, clip: dict) -> None:
    media = Path(clip["media_uris"][0]).read_bytes()
    junk = post(client, "/search", b"neither picture nor video")
    assert junk.status_code == 422 and "neither an image" in junk.json()["detail"]
    large = post(client, "/search", b"x" * (MAX_UPLOAD_MB * 2**20 + 1))
    assert large.status_code == 413 and "larger than 1 MB" in large.json()["detail"]
    assert post(client, "/search", media, k=0).status_code == 422
    assert post(client, "/search", media, domains="shop").status_code == 422
    assert client.post("/search").status_code == 422
    # One bad request does not spoil the replica.
    assert post(client, "/search", media).status_code == 200


def test_text_that_is_no_unicode_is_refused(client: httpx.Client) -> None:
    """As a form in UTF-7 can hold; the tokenizer would raise for all queries of its batch."""
    parts = [b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n+2AA-\r\n']
    parts.append(
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nx\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=b; charset=utf-7"}
    refused = client.post("/search", content=b"".join(parts), headers=headers)
    assert refused.status_code == 422 and "half a surrogate pair" in refused.json()["detail"]
    for name, value in (("file", b'; filename="+2AA-.jpg"\r\n\r\nx'), ("domain", b"\r\n\r\n+2AA-")):
        parts = [
            b'--b\r\nContent-Disposition: form-data; name="'
            + name.encode()
            + b'"'
            + value
            + b"\r\n--b--\r\n"
        ]
        told = client.post("/search", content=b"".join(parts), headers=headers)
        assert told.status_code == 422 and told.json()["detail"]


def test_a_searcher_of_other_shards_is_refused(demo: DemoRun) -> None:
    name = embedding_name(demo.workspace.fetch("models/ampere"))
    with pytest.raises(
        ValueError, match="1 shards by now, and this endpoint started with 2; start it again"
    ):
        SearcherDeployment.func_or_class(demo.workspace.uri, "ampere", name, 0, 2)


def test_requests_that_never_end_leave_others_their_answer_and_beyond_the_queue_there_is_503(
    client: httpx.Client,
) -> None:
    """Uploads that stop half-way: some of them keep nobody else waiting, and too many fill no memory."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nbegun'
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\nContent-Type: multipart/form-data; boundary=b"
    with ExitStack() as stack:

        def begin(count: int) -> list[socket.socket]:
            address = (client.base_url.host, client.base_url.port)
            held = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
            for one in held:
                one.sendall(head + b"\r\n\r\n" + part)
            return held

        begun = begin(20)
        assert client.get("/health").status_code == 200
        begun += begin(ONGOING + QUEUED - 20)
        # Ray counts a request as waiting only once the replica has refused it, so that some more of a burst come in.
        answered: list[socket.socket] = []
        while not answered and len(begun) < 2 * (ONGOING + QUEUED):
            begun += begin(1)
            answered, _, _ = select.select(begun, [], [], 1)
        assert answered and all(one.recv(100).startswith(b"HTTP/1.1 503") for one in answered)
    answers = (client.get("/health").status_code for _ in range(10_000))
    assert 200 in answers, "once they are gone, there is room again"


def test_health_names_model_and_index(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["model"] == health["index"]["model"]
    assert health["model"].startswith("ampere@")


def test_frames_are_jpeg_and_unknown_ids_are_404(client: httpx.Client, clip: dict) -> None:
    response = client.get(f"/frames/{clip['sample_id']}")
    assert response.headers["content-type"] == "image/jpeg" and response.content[:2] == b"\xff\xd8"
    assert client.get("/frames/nothing").status_code == 404


def test_the_page_is_served(client: httpx.Client) -> None:
    assert "Which pages, shorts and lives show this product?" in client.get("/").text


def test_an_application_without_an_index_is_refused(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="no model 'ampere'"):
        build_app(SearchArgs(workspace=workspace.uri))


def test_the_deployed_file_is_taken_as_it_stands_and_another_revision_is_another_application() -> (
    None
):
    """Ray starts nothing anew for a file that it knows."""
    text = (Path(__file__).parents[2] / "serve/config.yaml").read_text("utf-8")
    one, other = (
        ServeDeploySchema(
            **yaml.safe_load(text.replace('revision: "1"', f'revision: "{revision}"'))
        ).applications[0]
        for revision in (1, 2)
    )
    assert (
        SearchArgs(**one.args).workspace == "/data/workspace"
        and SearchArgs(**other.args).revision == "2"
    )
    assert get_app_code_version(one) != get_app_code_version(other)


@pytest.fixture
def retrained(workspace: Workspace) -> tuple[Workspace, str]:
    """A workspace whose index of model `m` is of weights `m@old`; and the name of the present ones."""
    name = embedding_name(embedding_model(workspace))
    folder = Path(workspace.uri) / "indexes" / "m"
    (folder / "v000001").mkdir(parents=True)
    (folder / "current.json").write_text(json.dumps({"version": "v000001"}))
    meta = {"model": "m@old", "base": None, "shards": 1, "domains": {}, "files": {}}
    (folder / "v000001/index.json").write_text(json.dumps(meta))
    return workspace, name


def test_an_application_whose_index_is_of_other_weights_is_refused(
    retrained: tuple[Workspace, str],
) -> None:
    workspace, name = retrained
    told = f"vectors of m@old and queries are embedded by {name}.*`ampere embed .*`ampere index"
    with pytest.raises(ValueError, match=told):
        build_app(SearchArgs(workspace=workspace.uri, model="m"))
    with pytest.raises(ValueError, match=told):
        SearcherDeployment.func_or_class(workspace.uri, "m", name, 0, 1)


def test_an_embedder_that_starts_after_another_training_is_refused(
    retrained: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The searchers hold vectors of the weights that the endpoint started with."""
    workspace, name = retrained
    monkeypatch.setattr(
        "ampere.models.embedder.Embedder", lambda *_: SimpleNamespace(name="m@later")
    )
    with pytest.raises(
        ValueError, match=f"model m is {name} by now, and this was started for m@old"
    ):
        embedder.EmbedderDeployment.func_or_class(
            workspace.uri, "m", "m@old", DecodeSettings(), "cpu"
        )
    with pytest.raises(
        ValueError, match=f"model m is m@later by now, and this was started for {name}"
    ):
        embedder.EmbedderDeployment.func_or_class(workspace.uri, "m", name, DecodeSettings(), "cpu")
