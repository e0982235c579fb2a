"""Routes that search and embed."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from ampere.retrieval.cells import json_value
from ampere.retrieval.request import SearchRequest
from serve.api.answers import QUERY, JsonResponse, bodies, hit_answer, services
from serve.api.batch import batch
from serve.api.bodies import FORM, JSON, LINES, read_body, read_json
from serve.problems import Problem
from serve.queries import Query
from serve.schemas import (
    EmbedAnswer,
    FacetsAnswer,
    FacetsBody,
    Line,
    QueryBody,
    SearchBody,
    SearchResult,
    facet_counts,
)
from serve.served_index import SearchCall
from serve.services import Services

router = APIRouter(prefix="/v1", tags=["search"])


LINES_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "a line for each line of the request",
        "content": {LINES: {"schema": {"$ref": f"#/components/schemas/{Line.__name__}"}}},
    }
}


@router.post(
    "/search",
    response_model=SearchResult,
    responses=QUERY,
    openapi_extra=bodies(SearchBody, JSON, FORM),
)
async def search(request: Request) -> JsonResponse:
    """The samples of each domain that fit a file, words, a stored sample, or a vector best."""
    body, files = await read_body(request, SearchBody)
    return JsonResponse(await search_answer(services(request), body, files))


@router.post(
    "/search/batch",
    response_class=Response,
    responses=QUERY | LINES_ANSWER,
    openapi_extra=bodies(SearchBody, LINES),
)
async def search_batch(request: Request) -> StreamingResponse:
    """Many searches: a JSON object per line, answered in their order, each by itself."""
    return await batch(request, SearchBody, search_answer)


@router.post(
    "/embed",
    response_model=EmbedAnswer,
    responses=QUERY,
    openapi_extra=bodies(QueryBody, JSON, FORM),
)
async def embed(request: Request) -> JsonResponse:
    """The vector of a file, of words, or of both together."""
    body, files = await read_body(request, QueryBody)
    return JsonResponse(await embed_answer(services(request), body, files))


@router.post(
    "/embed/batch",
    response_class=Response,
    responses=QUERY | LINES_ANSWER,
    openapi_extra=bodies(QueryBody, LINES),
)
async def embed_batch(request: Request) -> StreamingResponse:
    """The vectors of many queries: a JSON object per line, answered in their order."""
    return await batch(request, QueryBody, embed_answer)


@router.post(
    "/facets",
    response_model=FacetsAnswer,
    responses=QUERY,
    openapi_extra=bodies(FacetsBody, JSON),
)
async def facets(request: Request) -> JsonResponse:
    """The values of columns, with the number of rows that pass the filter and hold the words."""
    body = await read_json(request, FacetsBody)
    pair = services(request).queries.backend.pair(body.model)
    # Counting ranks nothing: any vector will do for a request without words.
    try:
        counting = SearchRequest(
            text=body.text,
            vector=() if body.text else (1.0,),
            mode="lexical" if body.text else None,
            filter=body.filter,
            domains=tuple(dict.fromkeys(body.domains)),
            k=1,
            facets=tuple(dict.fromkeys(body.columns)),
        )
    except ValueError as error:
        raise Problem(422, "request.invalid", reason=str(error)) from error
    counts, version = await pair.with_same_weights(
        lambda served: pair.facets(SearchCall(served.name, counting, {}))
    )
    return JsonResponse({"facets": counts_of(counts), "version": version})


def counts_of(facets: Any) -> dict[str, list[dict[str, Any]]]:
    """Facets as JSON."""
    counts = facet_counts(facets)
    for of_column in counts.values():
        for count in of_column:
            count["value"] = json_value(count["value"])
    return counts


async def search_answer(held: Services, body: SearchBody, files: list[bytes]) -> dict[str, Any]:
    """The answer to a search, as JSON."""
    start = time.perf_counter()
    query = await held.understood(body, files)
    found = await held.queries.search(body, query)
    answer = found.answer
    query.steps_ms["total"] = 1e3 * (time.perf_counter() - start)
    held.metrics.steps(query.steps_ms)
    return {
        "results": {
            str(domain): [hit_answer(hit) for hit in hits] for domain, hits in answer.hits.items()
        },
        "facets": counts_of(answer.facets),
        "mode": answer.mode,
        "model": found.name,
        "version": answer.version,
        "query": {
            "parts": list(found.parts),
            "domain": str(found.domain),
            "text": query.text,
            "transcript": query.transcript,
            "notes": [note.answer() for note in query.notes],
        },
        "timing_ms": query.steps_ms,
    }


async def embed_answer(held: Services, body: QueryBody, files: list[bytes]) -> dict[str, Any]:
    """The vector of a query, as JSON."""
    query: Query = await held.understood(body, files)
    vector, served, domain = await held.queries.vector(query)
    return {
        "vector": vector.tolist(),
        "dimension": len(vector),
        "domain": str(domain),
        "model": served.name,
    }
