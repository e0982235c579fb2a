"""What routes have in common: statuses, answers of hits, URLs of samples."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from ampere.retrieval.cells import json_value
from ampere.retrieval.search import Hit
from serve.api.bodies import ANY_JSON, FORM
from serve.problems import MEDIA_TYPE

DETAILS = {
    400: "the body is malformed",
    401: "no API key, or an unknown one",
    403: "this needs a key of role admin",
    404: "there is no such thing",
    408: "the upload stalled",
    413: "the upload is too large",
    415: "another content type is expected",
    422: "a value does not fit, or the file cannot be decoded",
    429: "too many requests; try again after the seconds in Retry-After",
    500: "a bug; the server's log has the reason under the request id",
    503: "overloaded, or starting; try again after the seconds in Retry-After",
}


class JsonResponse(JSONResponse):
    """JSON by pydantic: four times as fast as the standard library, NaN becomes null."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return ANY_JSON.dump_json(content)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI document; each may be asked for a key."""
    return {
        status: {
            "description": DETAILS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in sorted({*statuses, 401, 429, 500, 503})
    }


READ = problems(404, 422)
QUERY = problems(400, 408, 413, 415, 422)
ADMIN = problems(400, 403, 404, 408, 413, 415, 422)


def bodies(kind: type[BaseModel], *content_types: str) -> dict[str, Any]:
    """The request body of a route that reads it by itself, for the OpenAPI document."""
    names = {FORM: f"{kind.__name__}Form"}
    content = {
        content_type: {
            "schema": {"$ref": f"#/components/schemas/{names.get(content_type, kind.__name__)}"}
        }
        for content_type in content_types
    }
    return {"requestBody": {"required": True, "content": content}}


def path_id(sample_id: str) -> str:
    """A sample id as one segment of a path."""
    return quote(sample_id, safe="")


def urls(sample_id: str) -> dict[str, str]:
    """Where a sample, its frames and its file are, relative to the root of the endpoint."""
    base = f"/v1/samples/{path_id(sample_id)}"
    return {"sample": base, "frames": f"{base}/frames", "media": f"{base}/media"}


def hit_answer(hit: Hit) -> dict[str, Any]:
    """A hit as JSON. Paths of files are the server's own affair."""
    return {
        "sample_id": hit.sample_id,
        "product_id": hit.product_id,
        "domain": str(hit.domain),
        "score": hit.score,
        "text": hit.text,
        "group": json_value(hit.group),
        "columns": cells(hit.columns),
        "moment": None if hit.moment is None else asdict(hit.moment),
        "explanation": None if hit.explanation is None else asdict(hit.explanation),
        "urls": urls(hit.sample_id),
    }


def cells(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The catalog's further columns of a sample, as JSON."""
    return {name: json_value(value) for name, value in columns.items()}


def services(request: Request) -> Any:
    """The services of the gateway that a request came to; see `serve.services.Services`."""
    return request.app.state.services
