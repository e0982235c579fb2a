"""The HTTP gateway: validates requests, calls the embedder and the searchers, answers in JSON.

GET  /                    the search page
GET  /health              model and index of this endpoint, and whether it is busy
GET  /frames/{sample_id}  first stored frame of a sample, JPEG
POST /embed               multipart: file, text?, domain?              -> vector
POST /search              multipart: file?, text?, domain?, domains?, k? -> hits per domain, timings
"""

import asyncio
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BeforeValidator
from ray import serve
from ray.serve.handle import DeploymentHandle

from ampere.records import Domain
from ampere.retrieval.search import Hit
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text
from ampere.uris import path_of
from serve.embedder import Query
from serve.middleware import OtherOrigins, ProbeMethods, UploadLimit, Uploads, too_large
from serve.searcher import best_of

MAX_K = 100
# Requests of all kinds at a time; uploads have a pool of their own, smaller by far.
ONGOING, QUEUED = 1000, 200
HEALTH_WAIT_S = 2.0  # a health check must not wait for uploads


api = FastAPI(title="ampere", description="Which pages, shorts and lives show this product?")
api.add_middleware(UploadLimit)
api.add_middleware(ProbeMethods)
api.add_middleware(OtherOrigins, allow_methods=("GET", "POST"))


@api.exception_handler(RequestValidationError)
async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """422 without the offending value, which may not be encodable as JSON."""
    detail = [{name: problem[name] for name in ("loc", "msg")} for problem in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def check_text(text: str | None) -> None:
    """Refuse a text with half a character, which a form in UTF-7 can hold.

    Raises:
        HTTPException: 422.
    """
    if text and any("\ud800" <= character <= "\udfff" for character in text):
        raise HTTPException(422, "text contains an unpaired surrogate (invalid Unicode)")


MediaFile = Annotated[UploadFile, File(description="a picture or a video")]
OptionalFile = Annotated[
    UploadFile | None, File(description="a picture or a video; none: search by the words in text")
]
Text = Annotated[
    str | None,
    Form(description="words; with a file its title, or the product summary of the clip's speech"),
]


def without_empty(values: Any) -> Any:
    """A repeated field without the empty values that a form sends for a field left blank."""
    return [value for value in values if value != ""] if isinstance(values, list) else values


def answer_of(hit: Hit) -> dict[str, Any]:
    """A hit as JSON, with its media's file name: paths and buckets are the server's own affair."""
    fields = ("sample_id", "product_id", "score", "text")
    answer = {name: getattr(hit, name) for name in fields}
    return answer | {
        "media": None if hit.media_uri is None else path_of(hit.media_uri).name,
        "moment": None if hit.moment is None else vars(hit.moment),
    }


QueryDomain = Annotated[
    Domain | None,
    Form(description="domain of the file; default: a picture is a page, a video a short"),
]


@serve.deployment(
    max_ongoing_requests=ONGOING, max_queued_requests=QUEUED, graceful_shutdown_timeout_s=10
)
@serve.ingress(api)
class Gateway:
    """The ingress deployment; its limits also bound the queues of the deployments behind it.

    Args:
        embedder: the embedding deployment.
        searchers: one deployment per index shard.
        workspace: its URI, for the frames.
        max_upload_mb: largest accepted file.
        about: model and index, for `/health` while the deployments are busy.
        origins: whose pages may use the endpoint, such as `https://shop.example`.
        reads_text: whether the model embeds words; otherwise words alone rank by texts.
    """

    def __init__(
        self,
        embedder: DeploymentHandle,
        searchers: list[DeploymentHandle],
        workspace: str,
        max_upload_mb: int,
        about: dict[str, Any],
        origins: Sequence[str] = (),
        *,
        reads_text: bool = True,
    ) -> None:
        self.embedder, self.searchers = embedder, searchers
        self.max_upload_mb = max_upload_mb
        self.about = about
        self.origins = origins
        self.reads_text = reads_text
        self.uploads = Uploads()
        self.workspace = Workspace.open(workspace)
        self.frames = LanceFrames(self.workspace)

    async def drain(self) -> None:
        """Refuse further uploads, and return when those in progress have their answers."""
        await self.uploads.drain()

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
        """From the opened version of the frames, or from the newest if it misses the sample.

        Raises:
            KeyError: no such sample.
        """
        opened = self.frames
        try:
            return opened.find(sample_id)[0]
        except (OSError, ValueError):  # the opened version was deleted
            self.frames = LanceFrames(self.workspace)
        except KeyError:
            newest = LanceFrames(self.workspace)
            if newest.version == opened.version:  # an opened version keeps parts of the index
                raise
            self.frames = newest
        return self.frames.find(sample_id)[0]

    @api.post("/embed")
    async def embed(
        self, file: MediaFile, text: Text = None, domain: QueryDomain = None
    ) -> dict[str, Any]:
        """The vector of a picture or video."""
        check_text(text)
        return {"vector": await self._vector(file, text, domain)}

    @api.post("/search")
    async def search(
        self,
        file: OptionalFile = None,
        text: Text = None,
        domain: QueryDomain = None,
        domains: Annotated[
            list[Domain] | None,
            BeforeValidator(without_empty),
            Form(description="domains to search; default: all"),
        ] = None,
        k: Annotated[int, Form(ge=1, le=MAX_K, description="answers per domain")] = 10,
    ) -> dict[str, Any]:
        """The best hits of each domain for a picture or video, or for words, and the time taken."""
        check_text(text)
        start = time.perf_counter()
        words = None if file is not None else self._words(text)
        vector = None
        if words is None or self.reads_text:
            vector = await self._vector(file, text, domain)
        embedded = time.perf_counter()
        searches = [
            searcher.search.remote(vector, words, domains or list(Domain), k)
            for searcher in self.searchers
        ]
        hits = best_of(await asyncio.gather(*searches), k)
        searched = time.perf_counter()
        return {
            "results": {
                str(domain): [answer_of(hit) for hit in of_domain]
                for domain, of_domain in hits.items()
            },
            "timing_ms": {"embed": 1e3 * (embedded - start), "search": 1e3 * (searched - embedded)},
        }

    def _words(self, text: str | None) -> str:
        """The words of a query without a file.

        Raises:
            HTTPException: 422, there are none.
        """
        if not readable_text(text):
            raise HTTPException(422, "no file and no words; give a picture, a video or some words")
        assert text is not None, "it was read"
        return text

    async def _vector(
        self, file: UploadFile | None, text: str | None, domain: Domain | None
    ) -> list[float]:
        """Embed an upload, or words alone.

        Raises:
            HTTPException: 413, 422 or 500; the detail says why.
        """
        media = None if file is None else await file.read()
        if media is not None and len(media) > self.max_upload_mb * 2**20:
            raise too_large(self.max_upload_mb)
        result = await self.embedder.embed.remote(Query(media, text or None, domain))
        if result.error is not None:
            name = "" if file is None else file.filename or ""
            name = name.encode(errors="replace").decode() or "query"
            raise HTTPException(result.status, f"{name}: {result.error}")
        return result.vector
