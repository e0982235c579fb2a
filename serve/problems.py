"""Errors as `application/problem+json` (RFC 9457): what was sent and expected, what to do."""

import errno
import logging
import math
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from serve.messages import Value, message

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "x-request-id"
DISK_FULL = os.strerror(errno.ENOSPC)
logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        code: of a sentence in `serve.messages`: what was received and expected, and what to do.
        retry_after_s: when to try again; None: never, or at any time.
        errors: fields and what is wrong with each.
        values: of the sentence.
    """

    def __init__(
        self,
        status: int,
        code: str,
        *,
        retry_after_s: float | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        **values: Value,
    ) -> None:
        self.message = message(code, **values)
        super().__init__(self.message.text)
        self.status = status
        self.retry_after_s, self.errors = retry_after_s, list(errors)

    def body(self, request_id: str) -> dict[str, Any]:
        """The fields of the answer."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.message.text,
            "request_id": request_id,
            "code": self.message.code,
            "values": self.message.values,
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
    errors = [field_error(found) for found in error.errors()]
    first = errors[0]
    return Problem(
        422, "field.invalid", errors=errors, where=first["where"], reason=first["message"]
    )


def field_error(found: Mapping[str, Any]) -> dict[str, Any]:
    """An error of pydantic as JSON, with the limits in its sentence."""
    limits = found.get("ctx", {}).items()
    return {
        "where": ".".join(str(part) for part in found["loc"]) or "body",
        "message": str(found["msg"]),
        "code": f"field.{found['type']}",
        "values": {name: value for name, value in limits if isinstance(value, (str, int, float))},
    }


def server_error(error: Exception, request_id: str) -> Problem:
    """The problem of a bug, or of a full disk; logs the traceback.

    The answer has the type alone: messages may have the server's paths.
    """
    logger.error("request %s failed", request_id, exc_info=error)
    is_full = getattr(error, "errno", None) == errno.ENOSPC
    if is_full or (isinstance(error, OSError) and DISK_FULL in str(error)):  # the latter of Lance
        return Problem(503, "disk.full", retry_after_s=60)
    return Problem(500, "bug", kind=type(error).__name__)


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
        problem = Problem(error.status_code, "request.refused", reason=str(error.detail))
        if error.status_code == 404 and error.detail == "Not Found":
            problem = Problem(404, "route.missing", path=request.url.path)
        response = problem.response(request_id_of(request))
        response.headers.update(error.headers or {})
        return response
