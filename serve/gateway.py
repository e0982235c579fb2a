"""The HTTP gateway: validates requests, calls the embedder and the searchers, answers in JSON.

GET  /                    the search page
GET  /health              model and index of this endpoint, and whether it is busy
GET  /frames/{sample_id}  first stored frame of a sample, JPEG
POST /embed               multipart: file, text?, domain?              -> vector
POST /search              multipart: file, text?, domain?, domains?, k? -> hits per domain, timings
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
FORM_BYTES = 2**20  # allowed for the other form fields of a request
ONGOING, QUEUED = 100, 200  # requests; further requests get 503
HEALTH_WAIT_S = 2.0  # a health check must not wait for uploads


def too_large(max_upload_mb: int) -> HTTPException:
    """The answer to an upload beyond the limit."""
    return HTTPException(413, f"the file is larger than {max_upload_mb} MB")


class UploadLimit:
    """Rejects a body beyond the limit as it arrives, before the form parser stores it on disk."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and raise 413 once its body is too large."""
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
async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """422 without the offending value, which may not be encodable as JSON."""
    detail = [{name: problem[name] for name in ("loc", "msg")} for problem in error.errors()]
    return JSONResponse({"detail": detail}, 422)


MediaFile = Annotated[UploadFile, File(description="a picture or a video")]
Text = Annotated[
    str | None, Form(description="title of the picture, or product summary of the clip's speech")
]

QueryDomain = Annotated[
    Domain | None,
    Form(description="domain of the file; default: a picture is a page, a video a short"),
]


@serve.deployment(max_ongoing_requests=ONGOING, max_queued_requests=QUEUED)
@serve.ingress(api)
class Gateway:
    """The ingress deployment; its limits also bound the queues of the deployments behind it.

    Args:
        embedder: the embedding deployment.
        searchers: one deployment per index shard.
        workspace: its URI, for the frames.
        max_upload_mb: largest accepted file.
        about: model and index, for `/health` while the deployments are busy.
    """

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
        """The search page."""
        return files("serve").joinpath("page.html").read_text(encoding="utf-8")

    @api.get("/health")
    async def health(self) -> dict[str, Any]:
        """Model and index of this endpoint; status `busy` if the deployments do not answer soon."""
        calls = [
            self.embedder.model_name.remote(),
            *(searcher.meta.remote() for searcher in self.searchers),
        ]
        try:
            model, index, *_ = await asyncio.wait_for(asyncio.gather(*calls), HEALTH_WAIT_S)
        except TimeoutError:
            return {"status": "busy"} | self.about
        return {"status": "ok", "model": model, "index": index}

    @api.get("/frames/{sample_id:path}")
    def frame(self, sample_id: str) -> Response:
        """First stored frame of a sample."""
        try:
            jpeg = self._first_frame(sample_id)
        except KeyError as error:
            raise HTTPException(404, f"no sample {sample_id!r}") from error
        return Response(jpeg, media_type="image/jpeg")

    def _first_frame(self, sample_id: str) -> bytes:
        try:
            return self._frames_with(sample_id).take([sample_id])[0][0]
        except (OSError, ValueError):  # the opened version was deleted
            self.frames = LanceFrames(self.workspace)
            return self._frames_with(sample_id).take([sample_id])[0][0]

    def _frames_with(self, sample_id: str) -> LanceFrames:
        """The opened version of the frames, or the newest if the opened one misses the sample.

        One thread at a time reads the ids, and each version's ids once: those of a large catalog
        take a gigabyte.

        Raises:
            KeyError: no such sample.
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
        """The vector of a picture or video."""
        return {"vector": await self._vector(file, text, domain)}

    @api.post("/search")
    async def search(
        self,
        file: MediaFile,
        text: Text = None,
        domain: QueryDomain = None,
        domains: Annotated[
            list[Domain] | None, Form(description="domains to search; default: all")
        ] = None,
        k: Annotated[int, Form(ge=1, le=MAX_K, description="answers per domain")] = 10,
    ) -> dict[str, Any]:
        """The best hits of each domain for a picture or video, and the time taken."""
        start = time.perf_counter()
        vector = await self._vector(file, text, domain)
        embedded = time.perf_counter()
        searches = [
            searcher.search.remote(vector, domains or list(Domain), k)
            for searcher in self.searchers
        ]
        hits = best_of(await asyncio.gather(*searches), k)
        searched = time.perf_counter()
        return {
            "results": {
                str(domain): [asdict(hit) for hit in of_domain]
                for domain, of_domain in hits.items()
            },
            "timing_ms": {"embed": 1e3 * (embedded - start), "search": 1e3 * (searched - embedded)},
        }

    async def _vector(
        self, file: UploadFile, text: str | None, domain: Domain | None
    ) -> list[float]:
        """Embed an upload.

        Raises:
            HTTPException: 413, 422 or 500; the detail says why.
        """
        media = await file.read()
        if len(media) > self.max_upload_mb * 2**20:
            raise too_large(self.max_upload_mb)
        if text and any("\ud800" <= character <= "\udfff" for character in text):
            raise HTTPException(422, "text contains an unpaired surrogate (invalid Unicode)")
        result = await self.embedder.embed.remote(Query(media, text or None, domain))
        if result.error is not None:
            name = (file.filename or "").encode(errors="replace").decode()
            raise HTTPException(result.status, f"{name}: {result.error}")
        return result.vector
