"""Where a training keeps its checkpoints while it runs."""

import os
from typing import Any
from urllib.parse import urlsplit

from pyarrow.fs import AwsDefaultS3RetryStrategy, FileSystem, S3FileSystem


class RetryingS3(S3FileSystem):
    """An S3 file system that retries failed requests for about a minute, also after pickling.

    Pauses are 0, 50, 100, 200, ... ms, 51 s in all for 12 attempts. Arrow's default gives up after
    six seconds, which ends a training. A pickled `S3FileSystem` loses its retry strategy (pyarrow
    26), and Ray Train pickles it for its controller and workers.

    Args:
        region: of the bucket.
        server: `http://HOST:PORT` of a store that is not Amazon's; empty: Amazon's.
        attempts: for each request, the first one included.

    Raises:
        ValueError: `server` has another form.
    """

    def __init__(self, region: str, server: str, attempts: int) -> None:
        self._arguments = (region, server, attempts)
        url = urlsplit(server)
        is_server = url.scheme in ("http", "https") and url.netloc and url.path in ("", "/")
        if server and not is_server:
            raise ValueError(f"AWS_ENDPOINT_URL is {server!r}; expected http://HOST:PORT")
        super().__init__(
            region=region,
            scheme=url.scheme or None,
            endpoint_override=url.netloc or None,
            retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=attempts - 1),  # of retries
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, from which it is built again."""
        return RetryingS3, self._arguments


def checkpoint_storage(uri: str) -> tuple[str, FileSystem | None]:
    """Path and file system of a folder for Ray Train.

    Args:
        uri: a local path or a cloud URI.

    Returns:
        For S3 the path without its scheme, and a file system that tries each request
        `AWS_MAX_ATTEMPTS` times (`ampere.uris` sets it). For others the URI and None: Ray Train
        finds the file system by itself.

    Raises:
        ValueError: `AWS_ENDPOINT_URL` is not of the form `http://HOST:PORT`.
    """
    if not uri.startswith("s3://"):
        return uri, None
    # S3FileSystem does not read these variables, as `FileSystem.from_uri` and boto3 do.
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    found, path = FileSystem.from_uri(uri)  # asks for the bucket's region
    return path, RetryingS3(found.region, server, int(os.environ["AWS_MAX_ATTEMPTS"]))
