"""What both clients share: address, key, timeouts, and the methods made from the calls."""

import inspect
import os
from collections.abc import Callable
from typing import Any, get_args

import httpx

from ampere.client.errors import ApiError, Unreachable, response_error
from ampere.client.retries import Attempts, Retries

URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "AMPERE_API_KEY"
CONNECT_S = 5.0  # longest time to connect
# Idle connections are dropped before servers do it, uvicorn after 5 s: a request that is sent while
# the server closes its connection is lost.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=3.0)
FAILED = (ApiError, httpx.RequestError)  # errors of an attempt


class Connection:
    """Settings of a client.

    Args:
        url: of the endpoint.
        api_key: None: that of the environment variable AMPERE_API_KEY, if there is one.
        timeout_s: longest silence of the endpoint, in seconds.
        retries: which requests are sent again; None: as `Retries` has it.
        clock: a monotonic clock, in seconds.
        jitter: random numbers from 0 to 1.

    Raises:
        ValueError: the address is not an HTTP URL.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout_s: float,
        retries: Retries | None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; expected an address such as {URL}")
        key = api_key or os.environ.get(KEY_VARIABLE)
        self.options: dict[str, Any] = {
            "base_url": url,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "limits": LIMITS,
            # Requests that wait for one of the client's own connections are not lost.
            "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S), pool=None),
        }
        self.url = url
        self._retries = retries or Retries()
        self._clock, self._jitter = clock, jitter

    def attempts(self, *, is_idempotent: bool = True) -> Attempts:
        """The attempts of a new request."""
        return Attempts(self._retries, is_idempotent, self._clock, self._jitter)

    def final(self, error: Exception, failed: int) -> Exception:
        """The error that the user gets after the last attempt.

        Args:
            error: of that attempt.
            failed: number of attempts.
        """
        if isinstance(error, ApiError):
            return error
        unreachable = Unreachable(
            f"no answer from {self.url}: {type(error).__name__}: {error} (attempt {failed}). Check "
            "the address, that the endpoint runs, and timeout_s"
        )
        unreachable.__cause__ = error
        return unreachable


def is_success(response: httpx.Response) -> bool:
    """Whether a probe succeeded; 503 says that it did not.

    Raises:
        ApiError: any other status: the address is not that of an endpoint.
    """
    if response.status_code in (200, 503):
        return response.status_code == 200
    raise response_error(response)


def as_method(method: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Give a method the name, docstring and arguments of the call that it makes."""
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__qualname__ = build.__name__
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[own, *signature.parameters.values()],
        return_annotation=get_args(signature.return_annotation)[0],  # of Call[T]
    )
