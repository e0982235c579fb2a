"""The OpenAPI document: FastAPI's, with the bodies that routes read by themselves."""

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.schemas import (
    FacetsBody,
    JudgmentBody,
    Line,
    ModelBody,
    ProblemBody,
    PublishBody,
    QueryBody,
    SampleBody,
    SamplesBody,
    SearchBody,
)

BODIES: tuple[type[BaseModel], ...] = (
    *(QueryBody, SearchBody, FacetsBody, SampleBody, SamplesBody, PublishBody, ModelBody),
    *(JudgmentBody, Line, ProblemBody),
)
FORMS = (QueryBody, SearchBody, SampleBody)
FILE = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "description": "a picture or a video; several pictures are frames",
}
SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "see `ampere keys`"}}


def document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the endpoint."""
    made = get_openapi(title=api.title, version=api.version, routes=api.routes)
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in BODIES], ref_template="#/components/schemas/{model}"
    )
    components = made.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in schemas["$defs"].items():
        components.setdefault(name, schema)
    for kind in FORMS:
        components[f"{kind.__name__}Form"] = as_form(components[kind.__name__])
    made["components"]["securitySchemes"] = SECURITY
    made["security"] = [{"key": []}, {}]
    return made


def as_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of a JSON body as those of a form, with a file in place of base64."""
    form = copy.deepcopy(schema)
    for name in ("media", "frames"):
        form["properties"].pop(name, None)
    form["properties"]["file"] = FILE
    return form
