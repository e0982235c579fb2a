"""Bodies of requests: JSON and forms; what does not fit is named."""

import asyncio
import base64
import errno
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from serve.api.answers import JsonResponse
from serve.api.bodies import read_body
from serve.messages import MESSAGES
from serve.problems import Problem, add_problems, server_error
from serve.schemas import SearchBody


def endpoint() -> FastAPI:
    api = FastAPI()
    add_problems(api)

    @api.post("/search")
    async def search(request: Request) -> JSONResponse:
        body, files = await read_body(request, SearchBody)
        return JSONResponse(
            {
                "fields": body.model_dump(exclude_defaults=True, mode="json"),
                "files": [file.decode() for file in files],
            }
        )

    return api


def post(path: str, **options: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(endpoint())
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.post(path, **options)

    return asyncio.run(one())


def test_form_gives_what_json_gives() -> None:
    fields = {
        "text": "红色 跑鞋",
        "domains": ["page", "live"],
        "k": 3,
        "weights": {"file": 1.0, "words": 0.5},
        "fusion_weights": [1.0, 2.0],
        "vector": [0.5, -1.0],
        "explain": True,
    }
    media = base64.b64encode(b"picture").decode()
    as_json = post("/search", json=fields | {"media": media}).json()
    form = fields | {"weights": json.dumps(fields["weights"]), "mode": "", "sample_id": ""}
    as_form = post("/search", data=form, files={"file": ("a.jpg", b"picture")}).json()
    assert as_form["files"] == as_json["files"] == ["picture"]
    assert as_form["fields"] == as_json["fields"] == fields  # the base64 is gone


def test_several_files_are_frames_in_their_order() -> None:
    files = [("file", (f"{n}.jpg", f"frame {n}".encode())) for n in range(3)]
    answer = post("/search", files=files, data={"k": "2"}).json()
    assert answer["files"] == ["frame 0", "frame 1", "frame 2"] and answer["fields"] == {"k": 2}


@pytest.mark.parametrize(
    ("options", "status", "detail"),
    [
        (
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "is not valid JSON",
        ),
        ({"content": b"[]", "headers": {"content-type": "application/json"}}, 422, "is a list"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "text/plain; expected"),
        ({"json": {"k": 0}}, 422, "k: "),
        ({"json": {"kk": 1}}, 422, "kk: "),
        ({"json": {"media": "???"}}, 422, "media is not valid base64"),
        ({"json": {"frames": ["???"]}}, 422, "frames is not valid base64"),
        ({"json": {"vector": ["nan"]}}, 422, "vector.0: "),
        ({"data": {"weights": "{"}, "files": {"file": b"x"}}, 422, "weights is '{'"),
        ({"files": {"file": ("a.jpg", b"")}}, 422, "the file 'a.jpg' is empty"),
        ({"files": {"x": b""}, "data": {"file": "a.jpg"}}, 422, "x is a file"),
        ({"files": {"text": b"x"}}, 422, "text is a file; expected the file in the field `file`"),
    ],
)
def test_body_that_does_not_fit_is_refused(
    options: dict[str, Any], status: int, detail: str
) -> None:
    answer = post("/search", **options)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]


def test_half_a_character_is_refused() -> None:
    body = b'{"text": "\\ud800"}'
    answer = post("/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "hex escape" in answer.json()["detail"]
    kind = {"content-type": "multipart/form-data; boundary=x; charset=raw_unicode_escape"}
    form = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n\\ud800\r\n--x--\r\n'
    answer = post("/search", content=form, headers=kind)
    assert answer.status_code == 422 and "unpaired surrogate" in answer.json()["detail"]


def test_numbers_that_json_lacks_are_null() -> None:
    answer = JsonResponse({"price": float("nan"), "columns": [float("inf"), "红"]})
    assert answer.body == '{"price":null,"columns":[null,"红"]}'.encode()


def test_value_that_is_too_large_is_not_repeated_in_the_answer() -> None:
    answer = post("/search", json={"text": "x" * 30_000})
    assert answer.status_code == 422 and len(answer.text) < 600
    (field,) = answer.json()["errors"]
    assert (field["where"], field["code"]) == ("text", "field.string_too_long")
    assert field["values"]["max_length"] < 30_000


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 503, "disk.full"),
        (OSError("LanceError(IO): /w/x: No space left on device (os error 28)"), 503, "disk.full"),
        (OSError(errno.EACCES, "Permission denied: /w/x"), 500, "bug"),
        (KeyError("/w/x"), 500, "bug"),
    ],
)
def test_error_of_the_server_names_no_path(error: Exception, status: int, code: str) -> None:
    problem = server_error(error, "id")
    assert (problem.status, problem.message.code) == (status, code)
    assert "/w" not in problem.message.text


def test_problem_says_when_to_try_again() -> None:
    problem = Problem(429, "busy", retry_after_s=0.2, limit=8)
    assert problem.response("id").headers["retry-after"] == "1"
    body = json.loads(bytes(problem.response("id").body))
    assert body == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": MESSAGES["busy"].format(limit=8),
        "request_id": "id",
        "code": "busy",
        "values": {"limit": 8},
    }
