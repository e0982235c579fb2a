"""What the client sends: JSON, forms, ids, keys, time limits."""

import io
import json
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ampere.client import Client, QueryKey, Rival
from tests.client.fakes import EMBEDDING, Driver, Endpoint, problem

MakeDriver = Callable[..., Driver]


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(httpx.Response(200, json=EMBEDDING))


def form(request: httpx.Request) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part of a form, in order."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts: Any = message_from_bytes(head + request.content).get_payload()
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in parts
    ]


def test_queries_without_a_file_are_json(driver: MakeDriver, endpoint: Endpoint) -> None:
    vector = np.array([0.5, 0.25], np.float32)
    driver(endpoint).call(
        "embed", text="蓝牙", vector=vector, weights={"words": 2}, sample_id=None, model="m"
    )
    assert endpoint.request.headers["content-type"] == "application/json"
    assert json.loads(endpoint.request.content) == {
        "text": "蓝牙",
        "vector": [0.5, 0.25],
        "weights": {"words": 2},
        "model": "m",
    }
    assert (endpoint.request.method, endpoint.request.url.path) == ("POST", "/v1/embed")


def test_queries_with_a_file_are_forms(
    driver: MakeDriver, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Lists repeat their field, objects are JSON, and the file's own name stays here."""
    file = tmp_path / "secret name.jpg"
    file.write_bytes(b"\xff\xd8\r\n--x")
    with pytest.raises(Exception, match="unexpected answer"):  # that of an embedding
        driver(endpoint).call(
            "search",
            file=file,
            text="蓝牙",
            domains=["page", "live"],
            weights={"file": 0.5},
            fusion_weights=(1.0, 0.25),
            k=3,
            explain=True,
            min_similarity=None,
        )
    assert form(endpoint.request) == [
        ("text", None, "蓝牙".encode()),
        ("domains", None, b"page"),
        ("domains", None, b"live"),
        ("weights", None, b'{"file": 0.5}'),
        ("fusion_weights", None, b"1.0"),
        ("fusion_weights", None, b"0.25"),
        ("k", None, b"3"),
        ("explain", None, b"true"),
        ("file", "file", b"\xff\xd8\r\n--x"),
    ]


def test_several_pictures_keep_their_order(
    driver: MakeDriver, endpoint: Endpoint, tmp_path: Path
) -> None:
    (tmp_path / "b").write_bytes(b"2")
    driver(endpoint).call("embed", file=[b"1", str(tmp_path / "b"), tmp_path / "b", b"3"])
    assert [content for _, _, content in form(endpoint.request)] == [b"1", b"2", b"2", b"3"]


def test_files_in_a_batch_are_base64(driver: MakeDriver, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    lines = [{"index": at, "status": 200, "answer": EMBEDDING} for at in range(3)]
    endpoint = Endpoint(httpx.Response(200, content="\n".join(map(json.dumps, lines))))
    queries = [{"file": tmp_path / "a"}, {"file": [b"ab", b"c"], "text": "t"}, {"file": None}]
    driver(endpoint).batch("embed_batch", queries)
    assert endpoint.bodies() == [
        [{"media": "YWI="}, {"frames": ["YWI=", "Yw=="], "text": "t"}, {}],
    ]


@pytest.mark.parametrize("file", [[], b"", [b"1", b""]])
def test_empty_files_are_refused(driver: MakeDriver, endpoint: Endpoint, file: Any) -> None:
    with pytest.raises(ValueError, match=r"file is .*; expected a path, the bytes of a file, or"):
        driver(endpoint).call("embed", file=file)
    assert endpoint.requests == []


def test_open_file_is_not_split_into_lines(driver: MakeDriver, endpoint: Endpoint) -> None:
    with pytest.raises(TypeError, match="file is an open file; expected a path, or its bytes"):
        driver(endpoint).call("embed", file=io.BytesIO(b"a\nb"))
    assert endpoint.requests == []


def test_files_that_do_not_exist_are_refused(driver: MakeDriver, endpoint: Endpoint) -> None:
    with pytest.raises(FileNotFoundError):
        driver(endpoint).call("embed", file="missing.jpg")
    with pytest.raises(FileNotFoundError):
        driver(endpoint).batch("embed_batch", [{"file": "missing.jpg"}])
    assert endpoint.requests == []


def test_unknown_arguments_and_numbers_are_refused(driver: MakeDriver, endpoint: Endpoint) -> None:
    with pytest.raises(TypeError, match="unknown: tex; expected some of file, media_uri, text,"):
        driver(endpoint).call("search", tex="a")
    with pytest.raises(TypeError, match="unknown: k;"):
        driver(endpoint).batch("embed_batch", [{"text": "a", "k": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        driver(endpoint).call("embed", vector=[float("nan")])
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("sample_id", "path"),
    [
        ("a b", "/v1/samples/a%20b"),
        ("店/1", "/v1/samples/%E5%BA%97%2F1"),
        ("100%2F", "/v1/samples/100%252F"),
        ("a?b#c&d;e+f", "/v1/samples/a%3Fb%23c%26d%3Be%2Bf"),
        ("..", "/v1/samples/%2E%2E"),
        (".", "/v1/samples/%2E"),
        ("a/../b", "/v1/samples/a%2F..%2Fb"),
        ("https://x/y", "/v1/samples/https%3A%2F%2Fx%2Fy"),
        ("a\n'\"", "/v1/samples/a%0A%27%22"),
    ],
)
def test_ids_are_encoded_as_one_part_of_the_path(
    driver: MakeDriver, sample_id: str, path: str
) -> None:
    endpoint = Endpoint(httpx.Response(204))
    driver(endpoint).call("delete_sample", sample_id)
    assert endpoint.request.url.raw_path == path.encode()
    assert (endpoint.request.method, endpoint.request.content) == ("DELETE", b"")


def test_an_empty_id_is_refused(driver: MakeDriver, endpoint: Endpoint) -> None:
    """Its path would be that of the collection."""
    with pytest.raises(ValueError, match="sample_id is empty"):
        driver(endpoint).call("delete_sample", "")


def test_the_address_may_have_a_path_and_a_slash(driver: MakeDriver, endpoint: Endpoint) -> None:
    for url in ("https://shop.example/ampere", "https://shop.example/ampere/"):
        driver(endpoint, url=url).call("embed", text="a")
    assert {str(request.url) for request in endpoint.requests} == {
        "https://shop.example/ampere/v1/embed"
    }


def test_addresses_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="url is 'localhost:8000'; expected an address such as"):
        Client("localhost:8000")


def test_key_is_an_argument_or_in_the_environment(
    driver: MakeDriver, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(endpoint).call("embed", text="a")
    driver(endpoint, api_key="k1").call("embed", text="a")
    monkeypatch.setenv("AMPERE_API_KEY", "k2")
    driver(endpoint).call("embed", text="a")
    driver(endpoint, api_key="k1").call("embed", text="a")
    keys = [request.headers.get("authorization") for request in endpoint.requests]
    assert keys == [None, "Bearer k1", "Bearer k2", "Bearer k1"]


@pytest.mark.parametrize(("timeout_s", "connect"), [(60.0, 5.0), (2.0, 2.0)])
def test_time_limits_reach_the_transport(
    driver: MakeDriver, endpoint: Endpoint, timeout_s: float, connect: float
) -> None:
    """There is none for waiting for one of the client's own connections."""
    driver(endpoint, timeout_s=timeout_s).call("embed", text="a")
    assert endpoint.request.extensions["timeout"] == {
        "connect": connect,
        "read": timeout_s,
        "write": timeout_s,
        "pool": None,
    }


def test_a_range_of_a_file_is_asked_for(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(206, content=b"cd"))
    assert driver(endpoint).call("media", "a", 1, start=2, stop=4) == b"cd"
    driver(endpoint).call("media", "a", start=2)
    driver(endpoint).call("media", "a")
    ranges = [request.headers.get("range") for request in endpoint.requests]
    assert ranges == ["bytes=2-3", "bytes=2-", None]
    assert [str(request.url.params) for request in endpoint.requests] == ["n=1", "n=0", "n=0"]


def test_a_range_that_a_proxy_ignores_is_cut_here(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(200, content=b"abcdef"))
    assert driver(endpoint).call("media", "a", start=2, stop=4) == b"cd"
    assert driver(endpoint).call("media", "a") == b"abcdef"


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (2, 2), (3, 1)])
def test_empty_ranges_are_refused(
    driver: MakeDriver, endpoint: Endpoint, start: int, stop: int | None
) -> None:
    with pytest.raises(ValueError, match=f"the range is {start} to {stop}"):
        driver(endpoint).call("media", "a", start=start, stop=stop)


def test_one_sample_is_json_without_a_file_and_a_form_with_one(driver: MakeDriver) -> None:
    stored = {"items": [{"sample_id": "a", "status": 200, "problem": None}]}
    endpoint = Endpoint(httpx.Response(200, json=stored))
    sample = {"sample_id": "a", "domain": "page", "columns": {"price": 9.5}}
    assert driver(endpoint).call("put_sample", **sample, vector=[1.0]) is None
    driver(endpoint).call("put_sample", **sample, file=b"x")
    assert json.loads(endpoint.requests[0].content) == {"samples": [sample | {"vector": [1.0]}]}
    assert form(endpoint.requests[1]) == [
        ("sample_id", None, b"a"),
        ("domain", None, b"page"),
        ("columns", None, b'{"price": 9.5}'),
        ("file", "file", b"x"),
    ]
    assert {request.method for request in endpoint.requests} == {"PUT"}


def test_a_judgment_is_sent_with_what_was_shown(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(201, json={"judgment_id": "j1"}))
    key = QueryKey(media="ab12", domain="short")
    shown = {"model": "m@1", "mode": "vector", "rank": 3}
    client = driver(endpoint)
    rival = Rival("n@2", "hybrid")
    assert client.call("judge", key, "s", grade=-1, rival=rival, **shown) == "j1"
    ((body,),) = endpoint.bodies()
    assert (
        body
        == {
            "query": {"text": None, "sample_id": None, "media": "ab12", "domain": "short"},
            "sample_id": "s",
            "grade": -1,
            "rival": {"model": "n@2", "mode": "hybrid", "rank": None},
        }
        | shown
    )


def test_a_judgment_is_taken_back_by_its_id(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(204))
    assert driver(endpoint).call("withdraw", "ab/12") is None
    assert endpoint.request.url.raw_path == b"/v1/judgments/ab%2F12"
    assert endpoint.request.method == "DELETE"


def test_probes_are_asked_once(driver: MakeDriver) -> None:
    for failure in (problem(503), httpx.ConnectError("refused")):
        endpoint = Endpoint(failure)
        assert driver(endpoint).call("ready") is False
        assert driver(endpoint).call("health") is False
        assert [request.url.path for request in endpoint.requests] == ["/readyz", "/healthz"]
    assert driver(Endpoint(httpx.Response(200))).call("ready") is True
    with pytest.raises(Exception, match="404: Not Found: nginx"):
        driver(Endpoint(httpx.Response(404, text="nginx"))).call("ready")
