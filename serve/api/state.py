"""Routes for probes, metrics, the page, and its login."""

import asyncio
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.api.answers import problems, services
from serve.guards.access import COOKIE, key_of
from serve.problems import Problem
from serve.schemas import StatusAnswer

router = APIRouter()
READY_S = 5.0
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@router.get("/healthz", response_model=StatusAnswer, tags=["probes"])
async def healthz() -> dict[str, str]:
    """Whether this process runs."""
    return {"status": "ok"}


@router.get("/readyz", response_model=StatusAnswer, responses=problems(503), tags=["probes"])
async def readyz(request: Request) -> dict[str, str]:
    """Whether models and indexes are loaded and warmed up."""
    held = services(request)
    try:
        await asyncio.wait_for(held.is_ready(), READY_S)
    except TimeoutError as error:
        raise Problem(503, "starting.all", retry_after_s=2, seconds=f"{READY_S:g}") from error
    return {"status": "ready"}


@router.get("/metrics", tags=["probes"], response_class=Response, responses=problems())
async def metrics(request: Request) -> Response:
    """Metrics of this gateway replica in the format of Prometheus."""
    held = services(request)
    held.metrics.set("ampere_in_progress", "Requests in progress", held.slots.taken)
    cache = held.queries.cache
    held.metrics.set("ampere_cached_queries_hits", "Queries found in the cache", cache.hits)
    held.metrics.set("ampere_cached_queries_misses", "Queries not in the cache", cache.misses)
    return Response(held.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post(
    "/v1/session", status_code=204, tags=["page"], responses=problems(), response_class=Response
)
async def session(request: Request) -> Response:
    """Keep the key of this request in a cookie that scripts cannot read, for the page."""
    answer = Response(status_code=204)
    key = key_of(request.headers)
    if key is not None:
        answer.set_cookie(
            COOKIE,
            key,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return answer


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The search page."""
    return page_file("index.html")


@router.get("/page/{name:path}", include_in_schema=False)
async def page_part(name: str) -> Response:
    """A file of the search page."""
    return page_file(name)


def page_file(name: str) -> Response:
    """A file of the search page.

    Raises:
        Problem: 404, there is none.
    """
    folder = files("serve").joinpath("page")
    parts = PurePosixPath(name).parts
    file = folder.joinpath(*parts) if parts else folder
    kind = CONTENT_TYPES.get(PurePosixPath(name).suffix)
    if kind is None or ".." in parts or name.startswith("/") or not file.is_file():
        raise Problem(404, "page.missing", name=repr(name[:100]))
    return Response(file.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})
