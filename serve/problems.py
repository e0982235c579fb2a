"""Errors as `application/problem+json` (RFC 9457): what was sent and expected, what to do."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "x-request-id"
logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        detail: what was received, what was expected, and what to do.
        retry_after_s: when to try again; None: never, or at any time.
        errors: fields and what is wrong with each.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry_after_s: float | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.retry_after_s, self.errors = retry_after_s, list(errors)

    def body(self, request_id: str) -> dict[str, Any]:
        """The fields of the answer."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        return body | ({"errors": self.errors} if self.errors else {})

    def response(self, request_id: str) -> JSONResponse:
        """The HTTP answer."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(request_id), self.status, headers, MEDIA_TYPE)


def invalid_fields(error: ValidationError | RequestValidationError) -> Problem:
    """The problem of values that do not fit; their own values are left out, which may be huge."""
    errors = [
        {
            "where": ".".join(str(part) for part in found["loc"]) or "body",
            "message": str(found["msg"]),
        }
        for found in error.errors()
    ]
    first = errors[0]
    return Problem(422, f"{first['where']}: {first['message']}", errors=errors)


def server_error(error: Exception, request_id: str) -> Problem:
    """The problem of a bug; logs the traceback.

    The answer has the type alone: messages may have the server's paths.
    """
    logger.error("request %s failed", request_id, exc_info=error)
    return Problem(
        500,
        f"{type(error).__name__} on the server. Its log has the reason under this request id; "
        "please report it",
    )


def request_id_of(request: Request) -> str:
    """The id that the outermost guard gave the request."""
    return request.scope.get("ampere.request_id", "")


def add_problems(api: FastAPI) -> None:
    """Answer every error of an application in this form."""

    @api.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return error.response(request_id_of(request))

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return invalid_fields(error).response(request_id_of(request))

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = f"no route {request.url.path}; see /openapi.json for those that there are"
        response = Problem(error.status_code, detail).response(request_id_of(request))
        response.headers.update(error.headers or {})
        return response
