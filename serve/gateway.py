"""The HTTP side: checks requests, calls embedder and searchers, answers in JSON.

GET  /                       a page to search by hand
GET  /health                 model and index behind this endpoint, and whether it is busy
GET  /frames/{sample_id}     first stored frame of a sample, JPEG
POST /embed                  multipart: file, text?, domain?   -> vector
POST /search                 multipart: file, text?, domain?, domains?, k? -> hits per domain, timings
"""

import asyncio
import threading
import time
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ampere.records import Domain
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from serve.embedder import Query
from serve.searcher import best_of

MAX_K = 100
FORM_BYTES = 2**20  # of a request, besides its file
ONGOING, QUEUED = 100, 200  # requests; those beyond are answered 503
HEALTH_WAIT_S = 2.0  # for the embedder and the searchers; a probe must not wait behind uploads


def too_large(max_upload_mb: int) -> HTTPException:
    return HTTPException(413, f"the file is larger than {max_upload_mb} MB")


class UploadLimit:
    """Refuses a body beyond the limit while it comes in: the form's parser would first store all of it on disk."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_upload_mb = serve.get_replica_context().servable_object.max_upload_mb
        left = max_upload_mb * 2**20 + FORM_BYTES
        declared = dict(scope["headers"]).get(b"content-length", b"0")

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0 or int(declared) > max_upload_mb * 2**20 + FORM_BYTES:
                raise too_large(max_upload_mb)
            return message

        await self.app(scope, counted, send)


api = FastAPI(title="ampere", description="Which pages, shorts and lives show this product?")
api.add_middleware(UploadLimit)


@api.exception_handler(RequestValidationError)
async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
    """What is wrong with a request, without what came: that may hold half a character, which no answer can."""
    return JSONResponse(
        {"detail": [{name: found[name] for name in ("loc", "msg")} for found in error.errors()]},
        422,
    )


MediaFile = Annotated[UploadFile, File(description="a picture or a video")]
Text = Annotated[
    str | None, Form(description="the title, or the product summary of the clip's speech")
]

QueryDomain = Annotated[
    Domain | None,
    Form(description="what the file shows; unless told, a picture is a page and a video a short"),
]


@serve.deployment(
    max_ongoing_requests=ONGOING, max_queued_requests=QUEUED
)  # what waits behind it is bounded by it
@serve.ingress(api)
class Gateway:
    """The ingress deployment."""

    def __init__(
        self,
        embedder: DeploymentHandle,
        searchers: list[DeploymentHandle],
        workspace: str,
        max_upload_mb: int,
        about: dict[str, Any],
    ) -> None:
        self.embedder, self.searchers = embedder, searchers
        self.max_upload_mb = max_upload_mb
        self.about = about
        self.workspace = Workspace.open(workspace)
        self.frames = LanceFrames(self.workspace)
        self.opening = threading.Lock()

    @api.get("/", response_class=HTMLResponse)
    async def page(self) -> str:
        return files("serve").joinpath("page.html").read_text(encoding="utf-8")

    @api.get("/health")
    async def health(self) -> dict[str, Any]:
        asked = [
            self.embedder.model_name.remote(),
            *(searcher.meta.remote() for searcher in self.searchers),
        ]
        try:
            model, index, *_ = await asyncio.wait_for(asyncio.gather(*asked), HEALTH_WAIT_S)
        except TimeoutError:  # so much to do that it does not answer soon
            return {"status": "busy"} | self.about
        return {"status": "ok", "model": model, "index": index}

    @api.get("/frames/{sample_id:path}")
    def frame(self, sample_id: str) -> Response:
        try:
            jpeg = self._first_frame(sample_id)
        except KeyError as error:
            raise HTTPException(404, f"there is no sample {sample_id!r}") from error
        return Response(jpeg, media_type="image/jpeg")

    def _first_frame(self, sample_id: str) -> bytes:
        try:
            return self._frames_with(sample_id).take([sample_id])[0][0]
        except (OSError, ValueError):  # the version that was opened is gone
            self.frames = LanceFrames(self.workspace)
            return self._frames_with(sample_id).take([sample_id])[0][0]

    def _frames_with(self, sample_id: str) -> LanceFrames:
        """The frames as they were opened, or as they are now if a sample was not there then.

        Ids are read by one thread at a time, and of one version once: of a large catalogue they take a gigabyte.

        Raises:
            KeyError: there is no such sample.
        """
        with self.opening:
            if (
                sample_id not in self.frames
                and (newest := LanceFrames(self.workspace)).version != self.frames.version
            ):
                self.frames = newest
            if sample_id not in self.frames:
                raise KeyError(sample_id)
            return self.frames

    @api.post("/embed")
    async def embed(
        self, file: MediaFile, text: Text = None, domain: QueryDomain = None
    ) -> dict[str, Any]:
        return {"vector": await self._vector(file, text, domain)}

    @api.post("/search")
    async def search(
        self,
        file: MediaFile,
        text: Text = None,
        domain: QueryDomain = None,
        domains: Annotated[
            list[Domain] | None, Form(description="page, short, live; all unless given")
        ] = None,
        k: Annotated[int, Form(ge=1, le=MAX_K, description="answers per domain")] = 10,
    ) -> dict[str, Any]:
        start = time.perf_counter()
        vector = await self._vector(file, text, domain)
        embedded = time.perf_counter()
        asked = [
            searcher.search.remote(vector, domains or list(Domain), k)
            for searcher in self.searchers
        ]
        hits = best_of(await asyncio.gather(*asked), k)
        searched = time.perf_counter()
        return {
            "results": {
                str(domain): [asdict(hit) for hit in found] for domain, found in hits.items()
            },
            "timing_ms": {"embed": 1e3 * (embedded - start), "search": 1e3 * (searched - embedded)},
        }

    async def _vector(
        self, file: UploadFile, text: str | None, domain: Domain | None
    ) -> list[float]:
        media = await file.read()
        if len(media) > self.max_upload_mb * 2**20:
            raise too_large(self.max_upload_mb)
        if text and any("\ud800" <= character <= "\udfff" for character in text):
            raise HTTPException(
                422, "the text is not valid Unicode: it holds half a surrogate pair"
            )
        result = await self.embedder.embed.remote(Query(media, text or None, domain))
        if result.error is not None:
            name = (file.filename or "").encode(errors="replace").decode()
            raise HTTPException(result.status, f"{name}: {result.error}")
        return result.vector
