"""Routes of the index, the catalog's state, and judgments."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from ampere.store.indexes import base_meta
from ampere.store.rollback import publish_base, roll_back
from ampere.store.workspace import Workspace
from serve.api.answers import ADMIN, QUERY, READ, JsonResponse, bodies, services
from serve.api.bodies import JSON, read_json
from serve.backend import ServedPair
from serve.catalog_state import coverage_answer, newest_failures
from serve.problems import Problem
from serve.schemas import (
    CoverageAnswer,
    FailuresAnswer,
    IndexAnswer,
    JudgmentAnswer,
    JudgmentBody,
    JudgmentsAnswer,
    ModelAnswer,
    ModelBody,
    PublishBody,
)

router = APIRouter(prefix="/v1")
Limit = Annotated[int, Query(ge=1, le=1000, description="rows of each kind")]
JudgmentId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="as it was answered")]
COLUMN_TYPES = {"bool": "boolean", "double": "number", "string": "string"}
OWN_COLUMNS = ("split", "origin")


@router.get("/index", response_model=IndexAnswer, responses=READ, tags=["index"])
async def index(request: Request) -> JsonResponse:
    """What is served: models, versions, rows, the age of the newest change, recall, columns."""
    held = services(request)
    pairs = held.queries.backend.pairs.values()
    stats = [await stats_of(pair) for pair in pairs]
    columns = stats[0].get("columns", {})
    return JsonResponse(
        {
            "models": [
                model_answer(pair, of_pair) for pair, of_pair in zip(pairs, stats, strict=True)
            ],
            "columns": [
                {"name": name, "type": column_type(kind)}
                for name, kind in columns.items()
                if name not in OWN_COLUMNS
            ],
            "engines": held.engines_answer(),
            "role": request.scope.get("ampere.role", "admin"),
        }
    )


async def stats_of(pair: ServedPair) -> dict[str, Any]:
    """What the searcher of a model says of its index, with the name of the weights."""

    async def ask(served: Any) -> dict[str, Any]:
        return await pair.stats(served) | {"name": served.name, "reads_text": served.reads_text}

    return await pair.with_same_weights(ask)


def model_answer(pair: ServedPair, stats: dict[str, Any]) -> dict[str, Any]:
    """A served model and its index as JSON."""
    return {
        "model": pair.model,
        "name": stats["name"],
        "version": stats["version"],
        "base_version": stats.get("base"),
        "rows": stats["rows"],
        "changes": stats.get("changes"),
        "newest_change_age_s": stats.get("newest_change_age_s"),
        "recall": stats.get("recall", {}),
        "built_at": stats.get("built_at"),
        "reads_text": stats["reads_text"],
        "dimension": stats.get("dimension"),
        "hits_in_memory": stats.get("hits_in_memory"),
    }


def column_type(kind: str) -> str:
    """The type of a column by its Arrow name: string, number, boolean, timestamp or strings."""
    if kind.startswith("list"):
        return "strings"
    return "timestamp" if kind.startswith("timestamp") else COLUMN_TYPES.get(kind, "string")


@router.post(
    "/index/publish",
    response_model=ModelAnswer,
    responses=ADMIN,
    openapi_extra=bodies(PublishBody, JSON),
    tags=["index"],
)
async def publish(request: Request) -> JsonResponse:
    """Serve the base that was built at a version of the table; live changes stay."""
    held = services(request)
    body = await read_json(request, PublishBody)
    pair = held.queries.backend.pair(body.model)
    stats = await stats_of(pair)
    try:
        await asyncio.to_thread(publish_base, held.workspace, stats["name"], body.version)
    except (ValueError, OSError) as error:
        reason = without_paths(error, held.workspace)
        raise Problem(422, "request.invalid", reason=reason) from error
    held.audit.write(request, "publish", f"{pair.model} {body.version}")
    return JsonResponse(await answer_of_base(held.workspace, pair, stats, body.version))


@router.post(
    "/index/rollback",
    response_model=ModelAnswer,
    responses=ADMIN,
    openapi_extra=bodies(ModelBody, JSON),
    tags=["index"],
)
async def rollback(request: Request) -> JsonResponse:
    """Serve the base before the current one again; live changes stay."""
    held = services(request)
    pair = held.queries.backend.pair((await read_json(request, ModelBody)).model)
    # First, so that 503 says that nothing was done: a client sends it again, and a second rollback
    # would go further back.
    stats = await stats_of(pair)
    try:
        version = await asyncio.to_thread(roll_back, held.workspace, pair.model, stats["name"])
    except (ValueError, OSError, RuntimeError) as error:
        reason = without_paths(error, held.workspace)
        raise Problem(422, "request.invalid", reason=reason) from error
    held.audit.write(request, "rollback", f"{pair.model} {version}")
    return JsonResponse(await answer_of_base(held.workspace, pair, stats, version))


async def answer_of_base(
    workspace: Workspace, pair: ServedPair, stats: dict[str, Any], version: int
) -> dict[str, Any]:
    """A served model with a base that its replicas follow to within seconds.

    Args:
        stats: of the replica, which may still have the base before.
        version: of the base.
    """
    meta = await asyncio.to_thread(base_meta, workspace, stats["name"], version)
    of_base = {"base": version, "recall": meta.get("gate", {}), "built_at": meta.get("built_at")}
    return model_answer(pair, stats | of_base | {"changes": None})


def without_paths(error: Exception, workspace: Workspace) -> str:
    """The message of an error without the place of the workspace, which is the server's affair."""
    return str(error).replace(workspace.uri, "the workspace")


@router.get("/coverage", response_model=CoverageAnswer, responses=READ, tags=["catalog"])
async def coverage(request: Request, model: str | None = None, limit: Limit = 100) -> JsonResponse:
    """Products without a short or a page, near duplicates, and likely wrong product ids."""
    held = services(request)
    pair = held.queries.backend.pair(model)
    return JsonResponse(await held.coverage.get(pair, lambda found: coverage_answer(found, limit)))


@router.get("/failures", response_model=FailuresAnswer, responses=READ, tags=["catalog"])
async def failures(request: Request, limit: Limit = 100) -> JsonResponse:
    """The rows that failed in the last runs of the stages, with their reasons."""
    found = await asyncio.to_thread(newest_failures, services(request).workspace, limit)
    return JsonResponse(found)


@router.post(
    "/judgments",
    status_code=201,
    response_model=JudgmentAnswer,
    responses=QUERY | READ,
    openapi_extra=bodies(JudgmentBody, JSON),
    tags=["judgments"],
)
async def judge(request: Request) -> JsonResponse:
    """Store what a person thinks of a hit; `ampere evaluate --judgments` scores models by it."""
    body = await read_json(request, JudgmentBody)
    held = services(request)
    await held.samples.row(body.sample_id)
    judgment_id = await asyncio.to_thread(held.judge, body)
    held.audit.write(request, "judge", body.sample_id)
    return JsonResponse({"judgment_id": judgment_id}, 201)


@router.get("/judgments", response_model=JudgmentsAnswer, responses=READ, tags=["judgments"])
async def judgments(request: Request, limit: Limit = 100) -> JsonResponse:
    """The stored judgments, the newest first."""
    stored = await asyncio.to_thread(services(request).judgments, limit)
    return JsonResponse({"judgments": stored})


@router.delete(
    "/judgments/{judgment_id}",
    status_code=204,
    responses=READ,
    response_class=Response,
    tags=["judgments"],
)
async def withdraw(request: Request, judgment_id: JudgmentId) -> Response:
    """Take a judgment back: it counts no more. One before it of the same hit may count again."""
    held = services(request)
    await asyncio.to_thread(held.withdraw, judgment_id)
    held.audit.write(request, "withdraw", judgment_id)
    return Response(status_code=204)
