"""What the client makes of answers: dataclasses, and errors with a type."""

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ampere.client import (
    ApiError,
    AsyncClient,
    Client,
    Column,
    Doubtful,
    Duplicate,
    Explanation,
    Failure,
    FieldError,
    Frame,
    Invalid,
    Judgment,
    Media,
    Moment,
    MomentAnswer,
    Note,
    NotFound,
    Overloaded,
    QueryKey,
    Rival,
    Summary,
    Unauthorized,
    Urls,
    ValueCount,
)
from tests.client.fakes import Driver, Endpoint, problem

MakeDriver = Callable[..., Driver]
URLS = {"sample": "/v1/samples/a", "frames": "/v1/samples/a/frames", "media": None}
MODEL = {
    "model": "ampere",
    "name": "ampere@3f",
    "version": 57,
    "base_version": 55,
    "rows": {"page": 10},
    "changes": 3,
    "newest_change_age_s": None,
    "recall": {"page": 0.99, "live": None},
    "built_at": "2026-12-01T03:00:00+00:00",
    "reads_text": True,
    "dimension": 128,
    "hits_in_memory": True,
}


def call(driver: MakeDriver, answer: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """The result of a method for an answer, and the path that was asked."""
    endpoint = Endpoint(httpx.Response(200, json=answer))
    result = driver(endpoint).call(name, *args, **kwargs)
    return result, endpoint.request.url.raw_path.decode()


def test_search(driver: MakeDriver) -> None:
    explanation = {
        "similarity": 0.5,
        "vector_rank": 1,
        "lexical_score": None,
        "lexical_rank": None,
        "file_similarity": None,
        "words_similarity": 0.5,
        "matched_words": ["耳机"],
    }
    hit = {
        "sample_id": "a",
        "product_id": None,
        "domain": "live",
        "score": 0.5,
        "text": "t",
        "group": None,
        "columns": {"price": 9.5, "tags": ["x"]},
        "moment": {"start_s": 1.5, "end_s": 3, "text": "这款耳机"},
        "explanation": explanation,
        "urls": URLS,
        "field of a newer endpoint": 1,
    }
    answer, path = call(
        driver,
        {
            "results": {"page": [], "live": [hit, hit | {"moment": None, "explanation": None}]},
            "facets": {"category": [{"value": "shoes", "count": 3}]},
            "mode": "hybrid",
            "model": "ampere@3f",
            "version": 57,
            "query": {"parts": ["words"], "domain": None, "text": "耳机", "transcript": None}
            | {"notes": [{"code": "speech.none", "message": "n", "values": {}}]},
            "timing_ms": {"total": 8.5},
        },
        "search",
        text="耳机",
    )
    assert path == "/v1/search"
    first, second = answer.results["live"]
    assert first.moment == Moment(1.5, 3, "这款耳机") and first.urls == Urls(**URLS)
    assert first.explanation == Explanation(**explanation | {"matched_words": ("耳机",)})
    assert first.columns == {"price": 9.5, "tags": ["x"]}
    assert (second.moment, second.explanation) == (None, None)
    assert answer.results["page"] == ()
    assert answer.facets == {"category": (ValueCount("shoes", 3),)}
    assert (answer.version, answer.timing_ms) == (57, {"total": 8.5})
    assert answer.query.notes == (Note("speech.none", "n"),) and str(answer.query.notes[0]) == "n"
    with pytest.raises(AttributeError):
        first.score = 1


def test_embedding_and_moment(driver: MakeDriver) -> None:
    answer = {"vector": [0.6, 0.8], "dimension": 2, "domain": "short", "model": "m@1"}
    embedding, path = call(driver, answer, "embed", file=b"x")
    assert (embedding.vector, embedding.domain, path) == ((0.6, 0.8), "short", "/v1/embed")
    answer = {"at_s": 12.3, "frame": 3, "by": "frame", "text": None, "similarity": 0.7}
    moment, path = call(driver, answer, "moment", "a/b", sample_id="c")
    assert moment == MomentAnswer(**answer) and path == "/v1/samples/a%2Fb/moment"


def test_facets(driver: MakeDriver) -> None:
    answer = {"facets": {"n": [{"value": True, "count": 1}]}, "version": 3}
    counts, path = call(driver, answer, "facets", ["n"], filter="price < 3")
    assert (counts.facets, counts.version) == ({"n": (ValueCount(True, 1),)}, 3)
    assert path == "/v1/facets"


def test_sample(driver: MakeDriver) -> None:
    transcript = {"text": "t", "language": "zh", "seconds": 9.5}
    answer = {
        "sample_id": "a",
        "product_id": "p",
        "domain": "live",
        "text": None,
        "origin": "catalog",
        "columns": {},
        "transcript": transcript | {"segments": [{"start_s": 0, "end_s": 1, "text": "t"}]},
        "summaries": [{"method": "llm", "text": "s"}],
        "frames": [{"at_s": 1.5, "url": "/f"}],
        "media": [{"url": "/m", "content_type": "video/mp4"}],
        "urls": URLS,
    }
    sample, path = call(driver, answer, "sample", "a")
    assert sample.transcript.segments == (Moment(0, 1, "t"),) and path == "/v1/samples/a"
    assert sample.summaries == (Summary("llm", "s"),)
    assert (sample.frames, sample.media) == ((Frame(1.5, "/f"),), (Media("/m", "video/mp4"),))
    page, _ = call(driver, answer | {"transcript": None}, "sample", "a")
    assert page.transcript is None


def test_frames(driver: MakeDriver) -> None:
    frames, path = call(driver, {"frames": [{"at_s": None, "url": "/f"}]}, "frames", "a")
    assert frames == (Frame(None, "/f"),) and path == "/v1/samples/a/frames"
    endpoint = Endpoint(httpx.Response(200, content=b"\xff\xd8"))
    assert driver(endpoint).call("frame", "a", 2) == b"\xff\xd8"
    assert endpoint.request.url.path == "/v1/samples/a/frames/2"


def test_index(driver: MakeDriver) -> None:
    answer = {
        "models": [MODEL],
        "columns": [{"name": "price", "type": "number"}],
        "engines": {"transcriber": False, "summarizer": True},
        "role": "admin",
    }
    index, path = call(driver, answer, "index")
    assert index.models[0].recall == {"page": 0.99, "live": None} and path == "/v1/index"
    assert index.columns == (Column("price", "number"),)
    assert (index.engines.transcriber, index.engines.summarizer) == (False, True)
    for name, args, body in (
        ("publish", (55,), {"model": "m", "version": 55}),
        ("rollback", (), {"model": "m"}),
    ):
        endpoint = Endpoint(httpx.Response(200, json=MODEL))
        assert driver(endpoint).call(name, *args, model="m") == index.models[0]
        assert endpoint.bodies() == [[body]]
        assert endpoint.request.url.path == f"/v1/index/{name}"


def test_coverage_and_failures(driver: MakeDriver) -> None:
    answer = {
        "missing": {"short": ["p"]},
        "duplicates": [{"first": "a", "second": "b", "similarity": 1.0, "same_product": None}],
        "doubtful": [
            {"sample_id": "a", "product_id": "p", "neighbors_product": "q", "similarity": 0.9}
        ],
        "counts": {"products": 20, "missing": {"short": 2}, "duplicates": 3, "doubtful": 1},
        "pages": {"p": "page-p"},
    }
    coverage, path = call(driver, answer, "coverage", limit=5)
    assert path == "/v1/coverage?limit=5" and coverage.missing == {"short": ("p",)}
    assert coverage.duplicates == (Duplicate("a", "b", 1.0, None),)
    assert coverage.doubtful == (Doubtful("a", "p", "q", 0.9),)
    assert (coverage.counts.duplicates, coverage.pages) == (3, {"p": "page-p"})
    failure = {"stage": "decode", "sample_id": "a", "error_type": "MediaError", "error": "e"}
    failure |= {"failed_at": "2026-12-01T03:00:00+00:00"}
    failures, path = call(driver, {"total": 3, "failures": [failure]}, "failures")
    assert (failures.total, failures.failures) == (3, (Failure(**failure),))
    assert path == "/v1/failures?limit=100"


def test_judgments(driver: MakeDriver) -> None:
    judgment = {
        "judgment_id": "j",
        "query": {"text": "耳机", "sample_id": None, "media": None, "domain": None},
        "sample_id": "a",
        "model": "m@1",
        "mode": "vector",
        "rank": 1,
        "grade": 1,
        "rival": {"model": "n@1", "mode": "vector", "rank": None},
        "judged_at": "2026-12-01T03:00:00+00:00",
    }
    answer = {"judgments": [judgment, judgment | {"rival": None}]}
    (first, second), path = call(driver, answer, "judgments")
    key, rival = QueryKey(text="耳机"), Rival("n@1", "vector")
    assert first == Judgment(**judgment | {"query": key, "rival": rival})
    assert second.rival is None and path == "/v1/judgments"
    _, path = call(driver, answer, "judgments", limit=2)
    assert path == "/v1/judgments?limit=2"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Invalid) for status in (400, 413, 415, 422)),
        *((status, Unauthorized) for status in (401, 403)),
        (404, NotFound),
        (429, Overloaded),
        (405, ApiError),
        (500, ApiError),
    ],
)
def test_statuses_have_error_types(driver: MakeDriver, status: int, kind: type[ApiError]) -> None:
    response = problem(status, "what to do", **{"retry-after": "99"})
    with pytest.raises(ApiError) as raised:
        driver(Endpoint(response)).call("sample", "a")
    error = raised.value
    assert type(error) is kind and error.is_problem
    assert (error.status, error.detail, error.request_id) == (status, "what to do", "r1")
    assert error.code == "c"
    assert error.retry_after_s == 99


def test_errors_name_the_invalid_fields(driver: MakeDriver) -> None:
    content = {
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "a field is invalid",
        "errors": [{"where": "k", "message": "k is 0"}],
    }
    headers = {"content-type": "application/problem+json; charset=utf-8", "x-request-id": "r2"}
    endpoint = Endpoint(httpx.Response(422, content=json.dumps(content), headers=headers))
    with pytest.raises(Invalid, match="422: a field is invalid; k: k is 0 .request r2.") as raised:
        driver(endpoint).call("sample", "a")
    assert raised.value.errors == (FieldError("k", "k is 0"),)
    passed_on = copy.copy(raised.value)  # by the protocol of pickle, as multiprocessing and Ray
    assert (str(passed_on), passed_on.errors) == (str(raised.value), raised.value.errors)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<html>", "text/html"),
        ("[]", "application/problem+json"),
        ("{", "application/problem+json"),
    ],
)
def test_errors_of_proxies_have_their_text(driver: MakeDriver, content: str, kind: str) -> None:
    endpoint = Endpoint(httpx.Response(413, content=content, headers={"content-type": kind}))
    with pytest.raises(Invalid) as raised:
        driver(endpoint).call("sample", "a")
    assert raised.value.detail == f"Request Entity Too Large: {content}"
    assert not raised.value.is_problem


def test_a_redirect_is_an_error(driver: MakeDriver) -> None:
    """The key does not follow it to another host."""
    endpoint = Endpoint(httpx.Response(307, headers={"location": "https://other.example"}))
    with pytest.raises(ApiError, match="307: Temporary Redirect"):
        driver(endpoint, api_key="k").call("sample", "a")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "Expecting value"),
        (b"[]", "list instead of an object with sample_id"),
        (b'{"sample_id": "a"}', "product_id is missing"),
    ],
)
def test_answers_of_another_form_are_errors(
    driver: MakeDriver, content: bytes, reason: str
) -> None:
    endpoint = Endpoint(httpx.Response(200, content=content))
    with pytest.raises(ApiError, match=f"200: unexpected answer: {reason}.*same version"):
        driver(endpoint).call("sample", "a")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("rows", ["page", {"page": 3}, [1]])
def test_values_of_another_kind_are_errors(driver: MakeDriver, rows: Any) -> None:
    with pytest.raises(ApiError, match="unexpected answer: (str|dict|int) instead of"):
        call(driver, {"frames": rows}, "frames", "a")


def test_a_sample_that_is_not_stored_is_an_error(driver: MakeDriver) -> None:
    item = {"sample_id": "a", "status": 422, "problem": {"detail": "no picture"}}
    endpoint = Endpoint(httpx.Response(207, json={"items": [item]}))
    with pytest.raises(Invalid, match="422: no picture"):
        driver(endpoint).call("put_sample", sample_id="a", domain="page", file=b"x")
    with pytest.raises(ApiError, match="unexpected answer: KeyError"):
        driver(Endpoint(httpx.Response(200, json={}))).call("put_samples", [{"sample_id": "a"}])


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient) and len(methods(Client)) == 25
    assert all(getattr(Client, name).__doc__ for name in methods(Client))
