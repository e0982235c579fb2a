"""Errors of the client: what the endpoint refused, and endpoints that do not answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request."""

    where: str
    message: str


class ApiError(Exception):
    """An answer that is not the one asked for.

    Attributes:
        status: HTTP status.
        detail: what came, what was expected, and what to do.
        code: of that sentence, stable; None: a proxy answered.
        request_id: of the request, as in the endpoint's log; None: the answer has none.
        errors: of single fields.
        retry_after_s: seconds after which the endpoint asks to try again; None: it does not say.
        is_problem: whether the endpoint itself says so. False: a proxy before it answered, such as
            when a replica died.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        is_problem: bool = True,
    ) -> None:
        super().__init__(status, detail)  # all others are in __dict__, which pickle keeps
        self.status = status
        self.detail = detail
        self.code = code
        self.request_id = request_id
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.is_problem = is_problem

    def __str__(self) -> str:
        all_fields = [f"{error.where}: {error.message}" for error in self.errors]
        fields = "".join(f"; {field}" for field in all_fields if field not in self.detail)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status}: {self.detail}{fields}{request}"


class Invalid(ApiError):
    """The request is malformed, too large, or has an invalid value: 400, 413, 415, 422."""


class Unauthorized(ApiError):
    """The API key is missing, unknown, or not allowed to do this: 401, 403."""


class NotFound(ApiError):
    """There is no such sample, model or route: 404."""


class Overloaded(ApiError):
    """The endpoint is starting or has too much to do, and all attempts failed: 429, 503."""


class Unreachable(ConnectionError):
    """The endpoint did not answer, or not in time, or the connection was lost."""


KINDS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Overloaded,
    503: Overloaded,
}


def problem_error(
    status: int, problem: Mapping[str, Any], request_id: str | None = None, **details: Any
) -> ApiError:
    """Make an error of a problem document, which may be that of one line or sample.

    Args:
        status: HTTP status.
        problem: members of RFC 9457, `request_id` and `errors`.
        request_id: if the problem has none.
        details: further attributes of the error.
    """
    return KINDS.get(status, ApiError)(
        status,
        str(problem.get("detail") or problem.get("title") or "no detail"),
        code=problem.get("code"),
        request_id=problem.get("request_id") or request_id,
        errors=tuple(
            FieldError(str(error.get("where")), str(error.get("message")))
            for error in problem.get("errors") or ()
        ),
        **details,
    )


def response_error(response: httpx.Response) -> ApiError:
    """Make an error of an answer that was read."""
    problem: Any = None
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            problem = response.json()
        except ValueError:
            problem = None
    is_problem = isinstance(problem, dict)
    if not is_problem:
        problem = {"detail": f"{response.reason_phrase}: {response.text[:200]}"}
    return problem_error(
        response.status_code,
        problem,
        request_id=response.headers.get("x-request-id"),
        retry_after_s=retry_after(response.headers.get("retry-after")),
        is_problem=is_problem,
    )


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; None without one, or for a date.

    >>> retry_after("3"), retry_after("Wed, 21 Oct 2026 07:28:00 GMT")
    (3.0, None)
    """
    return float(header) if header and header.strip().isdecimal() else None
