"""Load media from bytes, a local path, or any URI that fsspec reads.

Over HTTP a file is one streamed GET, since many servers answer HEAD and ranges wrongly. A request
that fails for a reason that may pass (a timeout, a lost connection, status 408, 425, 429 or 5xx) is
retried with backoff, or after as long as the server's Retry-After says. Libraries of other stores,
such as S3's, retry by themselves.
"""

import time
from collections.abc import Callable

from ampere.media.decoder import MissingMedia, TooLarge, UnavailableMedia
from ampere.uris import absolute, open_file

HTTP = ("http://", "https://")
MAX_BYTES = 1_000_000_000
ATTEMPTS = 4
READ_TIME_S = 60.0  # for all attempts
CONNECT_TIMEOUT_S = 10.0
# Of a sample's time limit, for reading over HTTP: a server that hangs is then reported as
# unavailable, and not as a file that takes too long to decode.
READING_SHARE = 0.8
SILENCE_SHARE = 0.5  # of the time that is left; then there is time for another attempt


def load(
    source: str | bytes,
    max_bytes: int,
    deadline: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    setting: str = "decode.max_file_mb",
) -> bytes:
    """The bytes at a local path or URI; bytes are returned unchanged.

    Args:
        source: path, URI or bytes.
        max_bytes: limit on the length.
        deadline: when to give up reading over HTTP, as `time.monotonic`; None: in `READ_TIME_S`.
        sleep: waits between two attempts, in seconds.
        setting: name of the limit in messages.

    Raises:
        MissingMedia: the file is missing or empty.
        UnreadableMedia: the file cannot be read, for example for lack of permission.
        UnavailableMedia: all attempts failed, and a later one may succeed.
        TooLarge: the file is longer than `max_bytes`.
    """
    if isinstance(source, bytes):
        return source
    is_http = source.startswith(HTTP)
    deadline = time.monotonic() + READ_TIME_S if deadline is None else deadline
    for attempt in range(1, ATTEMPTS + 1):
        try:
            options = _http_options(deadline - time.monotonic()) if is_http else {}
            data = _read(source, max_bytes + 1, options)
        except MemoryError:
            raise
        except Exception as error:  # each store has errors of its own
            from ampere.media.source_errors import media_error, wait_s  # aiohttp imports slowly

            failure = media_error(source, error, attempt)
            wait = wait_s(error, attempt)
            if (
                not (is_http and isinstance(failure, UnavailableMedia) and attempt < ATTEMPTS)
                or time.monotonic() + wait >= deadline
            ):
                raise failure from error
            sleep(wait)
        else:
            break
    if not data:
        raise MissingMedia(f"media file is empty: {source}")
    if len(data) > max_bytes:
        limit = f"{max_bytes / 1e6:g} MB ({setting})"
        raise TooLarge(f"media file exceeds the limit of {limit}: {source}")
    return data


def _http_options(seconds: float) -> dict[str, object]:
    """Options of fsspec's HTTP files: a plain GET of any size, and timeouts."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(
        total=max(seconds, 0.001),  # 0 or less would mean no timeout
        sock_connect=CONNECT_TIMEOUT_S,
        sock_read=max(SILENCE_SHARE * seconds, 0.001),
    )
    return {"block_size": 0, "size": 1, "timeout": timeout}  # a given size needs no HEAD request


def _read(source: str, num_bytes: int, options: dict[str, object]) -> bytes:
    chunks, missing = [], num_bytes
    with open_file(absolute(source), "rb", **options) as file:
        while missing and (chunk := file.read(missing)):  # of a stream, what has arrived
            chunks.append(chunk)
            missing -= len(chunk)
    return b"".join(chunks)
