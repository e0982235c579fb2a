"""What the errors of fsspec's stores mean for a media file, and how long to wait after them."""

import errno
import random
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from ampere.media.decoder import MediaError, MissingMedia, UnavailableMedia, UnreadableMedia
from ampere.media.source import HTTP

FIRST_WAIT_S = 1.0  # doubled after each further attempt, and varied by up to a half
NOT_FOUND = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
# Classes for connections that were lost, refused or timed out: built-in ones, those of aiohttp, and
# those of botocore, whose ConnectionError is another.
PASSING = {
    "TimeoutError",
    "ConnectionError",
    "ClientConnectionError",
    "ClientPayloadError",
    "HTTPClientError",
}
# What object stores' libraries raise for a busy store, and a network file system for a lost server.
BUSY_ERRNOS = (errno.EBUSY, errno.EIO, errno.ESTALE)


def media_error(source: str, error: Exception, attempts: int) -> MediaError:
    """What an error of fsspec means for the media file, with its status and cause."""
    root = _root(error)
    status = _status(root)
    cause = _cause(root, status)
    if isinstance(error, FileNotFoundError) or status in NOT_FOUND:
        return MissingMedia(f"media file not found: {source}" + (f": {cause}" if status else ""))
    if _is_transient(root, status):
        tried = f" ({attempts} attempts)" if attempts > 1 else ""
        return UnavailableMedia(f"media file unavailable: {source}: {cause}{tried}")
    return UnreadableMedia(f"cannot read media file: {source}: {cause}")


def _root(error: Exception) -> BaseException:
    """The error of the store's own library, where fsspec translates it."""
    return error if isinstance(error, aiohttp.ClientError) else error.__cause__ or error


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of the libraries for HTTP, S3, Google's store and Azure's."""
    if isinstance(error, FileNotFoundError) and str(error).startswith(HTTP):
        return HTTPStatus.NOT_FOUND  # fsspec raises it for this status only
    if isinstance(error, aiohttp.TooManyRedirects):
        return None  # the status is that of the last redirect
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    values = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((value for value in values if isinstance(value, int)), None)


def _cause(error: BaseException, status: int | None) -> str:
    """An error in words.

    >>> _cause(TimeoutError("no answer"), None), _cause(OSError(), 503), _cause(OSError(), 599)
    ('TimeoutError: no answer', 'HTTP 503 Service Unavailable', 'HTTP 599')
    """
    if isinstance(error, aiohttp.TooManyRedirects):
        return "too many redirects"
    if status is None:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else ""
    return f"HTTP {status} {phrase}".strip()


def _is_transient(error: BaseException, status: int | None) -> bool:
    """Whether an error may pass by itself."""
    if status is not None:
        return status in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, aiohttp.ClientConnectorDNSError):  # "try again", or no such name
        return error.os_error.errno == socket.EAI_AGAIN
    bases = {base.__name__ for base in type(error).__mro__}
    if bases & {"SSLError", "ClientSSLError"}:  # botocore's too
        return False
    return bool(bases & PASSING) or (isinstance(error, OSError) and error.errno in BUSY_ERRNOS)


def wait_s(error: Exception, attempt: int) -> float:
    """Seconds to wait after an attempt: what the server asks for, else an exponential backoff."""
    if isinstance(error, aiohttp.ClientResponseError) and error.headers:
        seconds = retry_after_s(error.headers.get("Retry-After", ""))
        if seconds is not None:
            return seconds
    return FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)


def retry_after_s(value: str) -> float | None:
    """The seconds that a Retry-After header asks to wait: a number or a date; None if invalid.

    >>> retry_after_s("120"), retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after_s("soon")
    (120.0, 0.0, None)
    """
    if value.strip().isdecimal():
        return float(value)
    try:
        time_to_retry = parsedate_to_datetime(value)
    except ValueError:
        return None
    if time_to_retry.tzinfo is None:  # "-0000" in place of "GMT"
        time_to_retry = time_to_retry.replace(tzinfo=UTC)
    return max(0.0, (time_to_retry - datetime.now(UTC)).total_seconds())
