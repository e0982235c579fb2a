"""The HTTP application of a gateway replica: routes behind guards."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serve.api import index, samples, search, state
from serve.api.openapi import document
from serve.guards.access import Access
from serve.guards.admission import Admission
from serve.guards.envelope import Envelope
from serve.guards.probes import ProbeMethods
from serve.problems import add_problems
from serve.services import Services

METHODS = ("GET", "POST", "PUT", "DELETE")


class Api(FastAPI):
    """FastAPI with the project's OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = document(self)
        return self.openapi_schema


def bare_api() -> Api:
    """The routes without guards and services, of which the OpenAPI document is made."""
    # No pages of FastAPI's own: they load scripts from another host.
    api = Api(
        title="ampere",
        version=version("ampere"),
        description="Which pages, shorts and lives show this product?",
        docs_url=None,
        redoc_url=None,
    )
    add_problems(api)
    for router in (search.router, samples.router, index.router, state.router):
        api.include_router(router)
    return api


def build_api(services: Services) -> FastAPI:
    """The application over the services of a replica."""
    api = bare_api()
    api.state.services = services
    # The last one is the outermost.
    api.add_middleware(
        Admission,
        slots=services.slots,
        metrics=services.metrics,
        max_upload_bytes=services.max_upload_bytes,
        timeout_s=services.settings.request_timeout_s,
    )
    api.add_middleware(Access, ring=services.ring)
    api.add_middleware(ProbeMethods)
    if services.settings.origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=services.settings.origins,
            allow_methods=METHODS,
            allow_headers=["authorization", "content-type"],
        )
    api.add_middleware(Envelope, metrics=services.metrics)
    return api
