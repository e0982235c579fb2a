"""Where a training keeps its checkpoints while it runs."""

import os
from typing import Any
from urllib.parse import urlsplit

from pyarrow.fs import AwsDefaultS3RetryStrategy, FileSystem, S3FileSystem


class PatientS3(S3FileSystem):
    """An S3 file system that repeats failed requests, also in other processes.

    Pauses are 0, 50, 100, ... ms, and each is twice the one before: 51 s in all for 12 attempts.
    Arrow's own strategy gives up after six seconds, which ends a training, and a pickled
    `S3FileSystem` forgets its strategy (pyarrow 26).

    Args:
        region: of the bucket.
        server: `http://HOST:PORT` of a store that is not Amazon's; empty: Amazon's.
        attempts: for each request.

    Raises:
        ValueError: the server is no such URL.
    """

    def __init__(self, region: str, server: str, attempts: int) -> None:
        self._arguments = (region, server, attempts)
        url = urlsplit(server)
        if server and (url.scheme not in ("http", "https") or not url.netloc or url.path > "/"):
            raise ValueError(f"AWS_ENDPOINT_URL is {server!r}; expected http://HOST:PORT")
        super().__init__(
            region=region,
            scheme=url.scheme or None,
            endpoint_override=url.netloc or None,
            retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=attempts - 1),  # repetitions
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it again from its arguments."""
        return PatientS3, self._arguments


def checkpoint_storage(uri: str) -> tuple[str, FileSystem | None]:
    """Path and file system of a folder for Ray Train.

    Args:
        uri: a local path or a cloud URI.

    Returns:
        For S3 the path without its scheme and a file system that repeats each request
        `AWS_MAX_ATTEMPTS` times (see `ampere.uris`); for others the URI and None, with which Ray
        Train finds the file system.

    Raises:
        ValueError: `AWS_ENDPOINT_URL` is not of the form `http://HOST:PORT`.
    """
    if not uri.startswith("s3://"):
        return uri, None
    # S3FileSystem does not read these variables, as `FileSystem.from_uri` and boto3 do.
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    found, path = FileSystem.from_uri(uri)  # asks for the bucket's region
    return path, PatientS3(found.region, server, int(os.environ["AWS_MAX_ATTEMPTS"]))
