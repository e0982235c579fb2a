"""The endpoint over real HTTP: right answers, clear errors, and the batch job's vectors."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeDeploySchema

from ampere.models.model_folder import embedding_name
from ampere.records import SAMPLES
from ampere.store.models import model_folder
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from serve.app import SearchArgs, build_app
from tests.helpers.embeddings import embeddings_of
from tests.helpers.endpoint import Endpoint

pytestmark = pytest.mark.timeout(900)
SOON = 400  # looks at most, each a request, until a change is seen


@pytest.fixture(scope="module")
def http(endpoint: Endpoint) -> Iterator[httpx.Client]:
    with endpoint.client as client:
        yield client


def post(http: httpx.Client, path: str, media: bytes, **fields: object) -> httpx.Response:
    return http.post(path, files={"file": ("clip.mp4", media)}, data=fields)


def ids(answer: dict[str, Any], domain: str) -> list[str]:
    return [hit["sample_id"] for hit in answer["results"][domain]]


def test_search_answers_per_domain_best_first_and_without_paths(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    media = endpoint.clip.read_bytes()
    response = post(http, "/v1/search", media, k=4, text="", domain="", explain="true")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["results"].keys() == {"page", "short", "live"} and answer["mode"] == "vector"
    for hits in answer["results"].values():
        scores = [hit["score"] for hit in hits]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
        similar = [hit["explanation"]["file_similarity"] for hit in hits]
        np.testing.assert_allclose(similar, scores, atol=1e-5)
    assert answer["query"] == {
        "parts": ["file"],
        "domain": "short",
        "text": None,
        "transcript": None,
        "notes": [],
    }
    assert answer["model"].startswith("ampere@") and answer["timing_ms"]["total"] > 0
    assert str(endpoint.clip.parent) not in response.text
    assert endpoint.workspace.uri not in response.text


def test_words_stored_sample_and_vector_find_the_product(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    words = http.post("/v1/search", json={"text": endpoint.words, "k": 2}).json()
    assert words["mode"] == "hybrid"
    assert words["results"]["page"][0]["product_id"] == endpoint.product
    sample_id = endpoint.sample["sample_id"]
    assert words["results"]["live"][0]["text"] == endpoint.words
    like = http.post("/v1/search", json={"sample_id": sample_id, "k": 5}).json()
    assert sample_id not in ids(like, "live")
    vector = http.post("/v1/embed", json={"text": endpoint.words}).json()
    assert vector["dimension"] == len(vector["vector"]) == 128 and vector["domain"] == "page"
    by_vector = http.post("/v1/search", json={"vector": vector["vector"], "k": 3}).json()
    by_text = http.post(
        "/v1/search", json={"text": endpoint.words, "mode": "vector", "k": 3}
    ).json()
    for domain in ("page", "short", "live"):
        assert ids(by_vector, domain) == ids(by_text, domain)
        found = (by_vector["results"][domain], by_text["results"][domain])
        scores = [[hit["score"] for hit in hits] for hits in found]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_filters_groups_and_facets(http: httpx.Client, endpoint: Endpoint) -> None:
    category = endpoint.sample["category"]
    body = {
        "text": endpoint.words,
        "filter": f"category = '{category}'",
        "group_by": "product_id",
        "group_size": 2,
        "facets": ["category"],
        "domains": ["live"],
    }
    answer = http.post("/v1/search", json=body).json()
    hits = answer["results"]["live"]
    assert {hit["columns"]["category"] for hit in hits} == {category}
    products = [hit["group"] for hit in hits]
    assert products == [hit["product_id"] for hit in hits] and products[0] == endpoint.product
    assert answer["facets"]["category"][0]["value"] == category
    rows = endpoint.workspace.table(SAMPLES).read(["domain"])["domain"]
    counts = {count["values"]: count["counts"] for count in rows.value_counts().to_pylist()}

    def of_domains() -> dict[str, int]:
        answer = http.post("/v1/facets", json={"columns": ["domain", "category"]}).json()
        return {count["value"]: count["count"] for count in answer["facets"]["domain"]}

    # A sample that another test has just deleted may be counted for two seconds.
    assert counts in (of_domains() for _ in range(SOON))


@pytest.mark.parametrize("domain", ["page", "short", "live"])
def test_served_vectors_equal_those_of_the_batch_job(
    http: httpx.Client, endpoint: Endpoint, domain: str
) -> None:
    workspace = endpoint.workspace
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
        answer = post(http, "/v1/embed", Path(sample["media_uris"][0]).read_bytes(), **fields)
        np.testing.assert_allclose(answer.json()["vector"], stored, atol=1e-5)


def test_models_are_chosen_by_name(http: httpx.Client, endpoint: Endpoint) -> None:
    media = endpoint.picture.read_bytes()
    names = [
        post(http, "/v1/search", media, model=model).json()["model"].partition("@")[0]
        for model in ("", "ampere", "ampere-visual")
    ]
    assert names == ["ampere", "ampere", "ampere-visual"]
    unknown = post(http, "/v1/search", media, model="gemma")
    assert unknown.status_code == 422
    assert "served are ampere, ampere-visual" in unknown.json()["detail"]


def test_words_rank_by_texts_where_the_model_reads_none(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    body = {"text": endpoint.words, "model": "ampere-visual", "k": 1}
    answer = http.post("/v1/search", json=body).json()
    assert answer["mode"] == "lexical"


def test_batch_answers_lines_in_their_order_and_fails_each_by_itself(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    lines = [{"text": endpoint.words, "k": 1}, {"k": 0}, {"sample_id": "none"}, "not json"]
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    headers = {"content-type": "application/x-ndjson"}
    response = http.post("/v1/search/batch", content=body, headers=headers)
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert [answer["status"] for answer in answers] == [200, 422, 422, 400]
    assert answers[0]["answer"]["results"]["page"][0]["product_id"] == endpoint.product
    assert "no sample 'none'" in answers[2]["problem"]["detail"]
    vectors = http.post("/v1/embed/batch", content=json.dumps(lines[0]), headers=headers)
    assert json.loads(vectors.text)["status"] == 422  # k is no field of it
    many = http.post("/v1/search/batch", content=b"{}\n" * 1001, headers=headers)
    assert many.status_code == 422 and "over 1000 lines" in many.json()["detail"]
    assert http.post("/v1/search/batch", json={}).status_code == 415


def test_batch_of_many_packets_is_answered_whole(http: httpx.Client) -> None:
    """The first answers are ready before the last lines arrive."""
    lines = [json.dumps({"vector": [n + 1.0, *[0.5] * 127], "k": 1}) for n in range(400)]
    body = "\n".join(lines).encode()
    assert len(body) > 200_000
    headers = {"content-type": "application/x-ndjson"}
    response = http.post("/v1/search/batch", content=body, headers=headers)
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [(answer["index"], answer["status"]) for answer in answers] == [
        (n, 200) for n in range(400)
    ]


def found_soon(http: httpx.Client, sample_id: str, body: dict[str, Any], *, is_there: bool) -> bool:
    """Whether a sample appears in the hits, or leaves them, within some looks."""
    for _ in range(SOON):
        answer = http.post("/v1/search", json=body).json()
        if any(sample_id in ids(answer, domain) for domain in answer["results"]) is is_there:
            return True
    return False


def test_sample_is_found_after_it_was_put_and_gone_after_it_was_deleted(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    sample_id = "live/新 1"
    fields = {
        "sample_id": sample_id,
        "domain": "short",
        "product_id": "p-new",
        "text": "量子 咖啡机",
        "columns": json.dumps({"category": "咖啡机"}),
    }
    media = endpoint.clip.read_bytes()
    stored = http.put("/v1/samples", files={"file": ("a.mp4", media)}, data=fields)
    assert stored.status_code == 200, stored.text
    assert stored.json()["items"] == [{"sample_id": sample_id, "status": 200, "problem": None}]
    query = {"text": "量子 咖啡机", "k": 3, "filter": "category = '咖啡机'"}
    assert found_soon(http, sample_id, query, is_there=True)
    place = f"/v1/samples/{quote(sample_id, safe='')}"
    sample = http.get(place).json()
    assert sample["origin"] == "live" and sample["columns"]["category"] == "咖啡机"
    assert [frame["url"] for frame in sample["frames"]] == [f"{place}/frames/{n}" for n in (0, 1)]
    assert sample["media"] == [{"url": f"{place}/media?n=0", "content_type": "video/mp4"}]
    assert http.get(f"{place}/media").content == media
    moment = http.post(f"{place}/moment", json={"text": "咖啡机"}).json()
    assert moment["by"] == "frame" and moment["at_s"] == sample["frames"][moment["frame"]]["at_s"]
    similar = http.post(f"{place}/moment", json={"sample_id": sample_id}).json()
    assert similar["by"] == "frame" and abs(similar["similarity"]) <= 1
    unknown = http.post(f"{place}/moment", json={"sample_id": "none"})
    assert unknown.status_code == 422 and "no sample 'none'" in unknown.json()["detail"]
    assert http.delete(place).status_code == 204
    assert found_soon(http, sample_id, query, is_there=False)
    assert http.get(place).status_code == 404 and http.delete(place).status_code == 404
    audit = (Path(endpoint.workspace.uri) / "logs" / "audit.jsonl").read_text("utf-8")
    actions = [json.loads(line) for line in audit.splitlines()]
    of_sample = [line["action"] for line in actions if line["target"] == sample_id]
    assert of_sample == ["put", "delete"]


def test_samples_that_cannot_be_stored_have_their_own_status(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    before = endpoint.workspace.names("media/live")
    vector = [1.0] + [0.0] * 127
    samples = [
        {"sample_id": "v1", "domain": "page", "vector": vector},
        {"sample_id": "v2", "domain": "page", "vector": [1.0]},
        {"sample_id": "v3", "domain": "page", "vector": vector, "columns": {"colour": "red"}},
        {"sample_id": "v4", "domain": "page", "media": "eA=="},
        {"sample_id": "v5", "domain": "page"},
        {"sample_id": "v6", "domain": "page", "media_uri": "file:///etc/passwd"},
        {"sample_id": "v7", "domain": "page", "vector": vector, "columns": {"category": 5}},
    ]
    answer = http.put("/v1/samples", json={"samples": samples})
    assert answer.status_code == 207
    items = answer.json()["items"]
    assert [item["status"] for item in items] == [200, 422, 422, 422, 422, 422, 422]
    details = [item["problem"]["detail"] for item in items[1:]]
    for detail, expected in zip(
        details,
        ["128", "colour", "neither an image", "no file, text", "allowed store", "type number"],
        strict=True,
    ):
        assert expected in detail
    assert http.delete("/v1/samples/v1").status_code == 204
    assert endpoint.workspace.names("media/live") == before
    twice = http.put("/v1/samples", json={"samples": [samples[0], samples[0]]})
    assert twice.status_code == 422 and "2 samples have the sample_id 'v1'" in twice.text


def test_parts_of_a_clip_are_served_so_that_it_plays(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    media = endpoint.clip.read_bytes()
    place = f"/v1/samples/{endpoint.sample['sample_id']}/media"
    part = http.get(place, headers={"range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == media[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(media)}"
    assert part.headers["content-type"] == "video/mp4"
    for wrong in (f"bytes={len(media)}-", "bytes=abc"):
        refused = http.get(place, headers={"range": wrong})
        assert refused.status_code == 416 and refused.json()["code"] == "media.range"
    assert http.get(place, params={"n": 1}).status_code == 404
    frame = http.get(f"/v1/samples/{endpoint.sample['sample_id']}/frames/0")
    assert frame.headers["content-type"] == "image/jpeg" and frame.content[:2] == b"\xff\xd8"


def test_invalid_requests_get_clear_errors_and_an_id(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    media = endpoint.clip.read_bytes()
    problems = {
        "neither an image": post(http, "/v1/search", b"neither picture nor video"),
        "serve.max_upload_mb": post(http, "/v1/search", b"x" * (2**20 + 1)),
        "k: ": post(http, "/v1/search", media, k=0),
        "domains.0: ": post(http, "/v1/search", media, domains="shop"),
        "expected a file, words": http.post("/v1/search", json={}),
        "no column 'colour'": http.post("/v1/facets", json={"columns": ["colour"]}),
        "price": http.post("/v1/search", json={"text": "a", "filter": "price < 3"}),
        "has 3 numbers; expected 128": http.post("/v1/search", json={"vector": [1, 2, 3]}),
        "no column 'media_uri'": http.post("/v1/facets", json={"columns": ["media_uri"]}),
        "different dimensions": http.post(
            "/v1/search", json={"text": "a", "vector": [1.0], "mode": "vector"}
        ),
        "no sample 'none'": http.get("/v1/samples/none"),
        "no route /v2": http.get("/v2"),
    }
    for expected, answer in problems.items():
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        body = answer.json()
        assert expected in body["detail"] and answer.status_code == body["status"] < 500
        assert body["request_id"] == answer.headers["x-request-id"]
    assert problems["serve.max_upload_mb"].status_code == 413
    # The replica still works.
    assert post(http, "/v1/search", media).status_code == 200


def test_text_with_an_unpaired_surrogate_is_rejected(http: httpx.Client) -> None:
    """A form in UTF-7 can contain one; the tokenizer would raise for the whole batch."""

    def post_form(*parts: str) -> httpx.Response:
        body = "".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
        headers = {"content-type": "multipart/form-data; boundary=b; charset=utf-7"}
        return http.post("/v1/search", content=f"{body}--b--\r\n".encode(), headers=headers)

    text = post_form('name="text"\r\n\r\n+2AA-', 'name="file"; filename="a.jpg"\r\n\r\nx')
    assert text.status_code == 422 and "an unpaired surrogate" in text.json()["detail"]
    for part in ('name="file"; filename="+2AA-.jpg"\r\n\r\nx', 'name="domain"\r\n\r\n+2AA-'):
        response = post_form(part)
        assert response.status_code == 422 and response.json()["detail"]


def test_probes_and_metrics(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    head = http.head("/healthz")
    assert (head.status_code, head.content) == (200, b"") and int(head.headers["content-length"])
    assert http.options("/v1/search").headers["allow"] == "POST, OPTIONS"
    metrics = http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'ampere_requests_total{method="GET",replica=' in metrics.text
    assert 'step="search"' in metrics.text


def test_index_names_versions_columns_and_recall(http: httpx.Client, endpoint: Endpoint) -> None:
    index = http.get("/v1/index").json()
    first, second = index["models"]
    assert first["name"] == embedding_name(model_folder(endpoint.workspace, "ampere"))
    assert (first["reads_text"], second["reads_text"]) == (True, False)
    rows = endpoint.workspace.table(SAMPLES).count()
    assert sum(first["rows"].values()) == rows and first["dimension"] == 128
    assert all(0.9 <= recall <= 1 for recall in first["recall"].values())
    assert first["newest_change_age_s"] >= 0 and index["role"] == "admin"
    assert first["hits_in_memory"] is True  # the demo's take less than serve.hit_memory_gb
    columns = {column["name"]: column["type"] for column in index["columns"]}
    assert columns["category"] == "string" and "media_uri" not in columns


def test_published_base_is_checked(http: httpx.Client) -> None:
    base = http.get("/v1/index").json()["models"][0]["base_version"]
    same = http.post("/v1/index/publish", json={"version": base})
    assert same.status_code == 200 and same.json()["base_version"] == base
    unknown = http.post("/v1/index/publish", json={"version": 10_000})
    assert unknown.status_code == 422 and "has bases of versions" in unknown.json()["detail"]
    none_before = http.post("/v1/index/rollback", json={})
    assert none_before.status_code == 422 and "no base" in none_before.json()["detail"]


def test_coverage_and_failures_of_the_catalog(http: httpx.Client) -> None:
    coverage = http.get("/v1/coverage", params={"limit": 3}).json()
    assert coverage["counts"]["products"] == 20
    assert coverage["missing"].keys() == {"page", "short", "live"}
    assert len(coverage["duplicates"]) <= 3
    failures = http.get("/v1/failures").json()
    assert failures["total"] == len(failures["failures"])


def test_stalled_uploads_take_all_slots_and_probes_still_answer(
    http: httpx.Client, endpoint: Endpoint
) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    address = (http.base_url.host, http.base_url.port)
    with ExitStack() as stack:
        statuses = []
        while 429 not in statuses and len(statuses) < 50:
            upload = stack.enter_context(socket.create_connection(address))
            upload.sendall(head)
            statuses.append(http.post("/v1/search", json={"text": "a"}).status_code)
        assert 429 in statuses and http.get("/healthz").status_code == 200
    statuses = (http.post("/v1/search", json={"text": "a"}).status_code for _ in range(SOON))
    assert 200 in statuses, "the slots were not freed after the uploads were closed"


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
    args = SearchArgs(**one.args)
    assert (args.workspace, args.requires_keys) == ("/data/workspace", True)
    assert SearchArgs(**other.args).revision == "2"
    assert get_app_code_version(one) != get_app_code_version(other)


def test_judgments_are_stored_and_listed(http: httpx.Client, endpoint: Endpoint) -> None:
    body = {
        "query": {"text": endpoint.words},
        "sample_id": endpoint.sample["sample_id"],
        "model": "ampere@1",
        "mode": "hybrid",
        "rank": 1,
        "grade": 1,
        "rival": {"model": "ampere@1", "mode": "vector", "rank": None},
    }
    stored = http.post("/v1/judgments", json=body)
    assert stored.status_code == 201
    newest = http.get("/v1/judgments", params={"limit": 1}).json()["judgments"][0]
    assert newest["judgment_id"] == stored.json()["judgment_id"]
    assert newest["query"]["text"] == endpoint.words and newest["rival"]["mode"] == "vector"
    itself = body | {"rival": {"model": "ampere@1", "mode": "hybrid", "rank": 2}}
    refused = http.post("/v1/judgments", json=itself)
    assert (
        refused.status_code == 422 and "is the same; expected another" in refused.json()["detail"]
    )
    assert http.post("/v1/judgments", json=body | {"sample_id": "none"}).status_code == 404


def test_judgment_is_taken_back(http: httpx.Client, endpoint: Endpoint) -> None:
    body = {
        "query": {"text": endpoint.words},
        "sample_id": endpoint.sample["sample_id"],
        "model": "ampere@1",
        "mode": "lexical",
        "rank": 1,
        "grade": -1,
    }
    judgment_id = http.post("/v1/judgments", json=body).json()["judgment_id"]
    taken_back = http.delete(f"/v1/judgments/{judgment_id}")
    assert (taken_back.status_code, taken_back.content) == (204, b"")
    listed = http.get("/v1/judgments").json()["judgments"]
    assert judgment_id not in [judgment["judgment_id"] for judgment in listed]
    again = http.delete(f"/v1/judgments/{judgment_id}")
    assert again.status_code == 404 and judgment_id in again.json()["detail"]
    assert http.delete("/v1/judgments/none").status_code == 422
