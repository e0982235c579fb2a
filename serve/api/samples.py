"""Routes of single samples."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ampere.retrieval.cells import json_value
from serve.api.answers import ADMIN, QUERY, READ, JsonResponse, bodies, cells, services, urls
from serve.api.bodies import FORM, JSON, files_of, read_body
from serve.api.media import file_response, media_types
from serve.moments import best_moment
from serve.problems import Problem, request_id_of, server_error
from serve.samples import without_own_columns
from serve.schemas import (
    FramesAnswer,
    MomentAnswer,
    QueryBody,
    SampleAnswer,
    SampleBody,
    SamplesBody,
    StoredAnswer,
)

router = APIRouter(prefix="/v1/samples", tags=["samples"])
Place = Annotated[int, Query(ge=0, le=10_000, description="number of the file, from 0")]


@router.put(
    "",
    response_model=StoredAnswer,
    responses=ADMIN | {207: {"model": StoredAnswer, "description": "some are not stored"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: bodies(SamplesBody, JSON)["requestBody"]["content"][JSON],
                FORM: bodies(SampleBody, FORM)["requestBody"]["content"][FORM],
            },
        }
    },
)
async def put(request: Request) -> JsonResponse:
    """Insert samples or replace them; they are found within two seconds."""
    held = services(request)
    if request.headers.get("content-type", "").lower().startswith(FORM):
        one, files = await read_body(request, SampleBody)
        wanted: list[tuple[SampleBody, list[bytes] | None]] = [(one, files)]
    else:
        several, _ = await read_body(request, SamplesBody)
        wanted = [(sample, None) for sample in several.samples]
    request_id = request_id_of(request)

    async def store(sample: SampleBody, files: list[bytes] | None) -> dict[str, Any]:
        problem = None
        try:
            await held.samples.put(sample, files_of(sample) if files is None else files)
        except Problem as found:
            problem = found
        except asyncio.CancelledError:
            held.audit.write(request, "put", sample.sample_id, 0)
            raise
        except Exception as error:
            problem = server_error(error, request_id)
        status = 200 if problem is None else problem.status
        held.audit.write(request, "put", sample.sample_id, status)
        return {
            "sample_id": sample.sample_id,
            "status": status,
            "problem": None if problem is None else problem.body(request_id),
        }

    items = await asyncio.gather(*(store(sample, files) for sample, files in wanted))
    status = 200 if all(item["status"] == 200 for item in items) else 207
    return JsonResponse({"items": items}, status)


@router.get("/{sample_id:path}/frames", response_model=FramesAnswer, responses=READ)
async def frames(request: Request, sample_id: str) -> JsonResponse:
    """The stored frames of a sample and their times."""
    await services(request).samples.row(sample_id)
    return JsonResponse({"frames": await frame_refs(request, sample_id)})


@router.get(
    "/{sample_id:path}/frames/{number}",
    responses=READ | {200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
async def frame(request: Request, sample_id: str, number: int) -> Response:
    """A stored frame as JPEG."""
    stored = await services(request).samples.frames(sample_id)
    if not 0 <= number < len(stored):
        raise Problem(404, "frame.missing", sample=repr(sample_id[:200]), count=len(stored))
    return Response(stored[number], media_type="image/jpeg", headers=CACHED)


CACHED = {"cache-control": "private, max-age=60"}


@router.get(
    "/{sample_id:path}/media",
    responses=READ
    | {
        200: {"content": {"application/octet-stream": {}}, "description": "the file"},
        206: {"content": {"application/octet-stream": {}}, "description": "a part of it"},
        416: {"description": "the part is beyond the file's end"},
    },
    response_class=Response,
)
async def media(request: Request, sample_id: str, n: Place = 0) -> Response:
    """A file of a sample; with the header Range a part of it, so that a clip plays."""
    row = await services(request).samples.row(sample_id)
    uris = row["media_uris"] or []
    if n >= len(uris):
        raise Problem(404, "media.missing", sample=repr(sample_id[:200]), count=len(uris))
    return await file_response(uris[n], request.headers.get("range"))


@router.post(
    "/{sample_id:path}/moment",
    response_model=MomentAnswer,
    responses=QUERY | READ,
    openapi_extra=bodies(QueryBody, JSON, FORM),
)
async def moment(request: Request, sample_id: str) -> JsonResponse:
    """The moment of a clip that fits a query best: the words that name it, or the nearest frame."""
    body, files = await read_body(request, QueryBody)
    held = services(request)
    return JsonResponse(await best_moment(held, sample_id, await held.understood(body, files)))


@router.get("/{sample_id:path}", response_model=SampleAnswer, responses=READ)
async def sample(request: Request, sample_id: str) -> JsonResponse:
    """All that is known of a sample."""
    held = services(request).samples
    row = await held.row(sample_id)
    heard = await held.transcript(sample_id)
    summaries = await held.summaries(sample_id)
    place = urls(sample_id)
    uris = row["media_uris"] or []
    types = await asyncio.to_thread(lambda: list(media_types(uris)))
    return JsonResponse(
        {
            "sample_id": sample_id,
            "product_id": row["product_id"],
            "domain": row["domain"],
            "text": row["text"],
            "origin": row["origin"],
            "columns": cells(without_own_columns(row)),
            "transcript": None if heard is None else transcript_answer(heard),
            "summaries": [
                {"method": summary["method"], "text": summary["text"]} for summary in summaries
            ],
            "frames": await frame_refs(request, sample_id),
            "media": [
                {"url": f"{place['media']}?n={number}", "content_type": kind}
                for number, kind in enumerate(types)
            ],
            "urls": place,
        }
    )


@router.delete("/{sample_id:path}", status_code=204, responses=ADMIN, response_class=Response)
async def delete(request: Request, sample_id: str) -> Response:
    """Delete a sample; it is found no more within two seconds.

    If the catalog still lists it, the next `ampere prepare` brings it back.
    """
    held = services(request)
    await held.samples.delete(sample_id)
    held.audit.write(request, "delete", sample_id)
    return Response(status_code=204)


async def frame_refs(request: Request, sample_id: str) -> list[dict[str, Any]]:
    """Where the frames of a sample are, and their times."""
    times = await services(request).samples.frame_times(sample_id)
    base = urls(sample_id)["frames"]
    return [{"at_s": time, "url": f"{base}/{number}"} for number, time in enumerate(times)]


def transcript_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the `transcripts` table as JSON."""
    return {
        "text": row["text"],
        "language": row["language"],
        "seconds": json_value(row["seconds"]),
        "segments": list(segments(row)),
    }


def segments(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What was said, with times."""
    for segment in row["segments"] or ():
        yield {name: segment[name] for name in ("start_s", "end_s", "text")}
