"""Where a training keeps its checkpoints while it runs."""

import os
from typing import Any
from urllib.parse import urlsplit

from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem

# Pauses of up to 1, 2, 4, ... and at most 20 seconds: a store may be away for a minute or more.
# Arrow's own strategy gives up after six seconds, and ends the training.
ATTEMPTS = 10


class PatientS3(S3FileSystem):
    """An S3 file system that repeats its requests for minutes, also in other processes.

    A pickled `S3FileSystem` forgets how it repeats requests (pyarrow 26).

    Args:
        region: of the bucket.
        attempts: for each request.
    """

    def __init__(self, region: str, attempts: int) -> None:
        self._arguments = (region, attempts)
        # S3FileSystem does not read this variable, as `FileSystem.from_uri` and boto3 do.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        server = urlsplit(endpoint) if endpoint else None
        super().__init__(
            region=region,
            scheme=server.scheme if server else None,
            endpoint_override=server.netloc if server else None,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it again from its arguments."""
        return PatientS3, self._arguments


def checkpoint_storage(uri: str) -> tuple[str, FileSystem | None]:
    """Path and file system of a folder for Ray Train.

    Args:
        uri: a local path or a cloud URI.

    Returns:
        For S3 the path without its scheme and a file system that repeats its requests for minutes;
        for others the URI and None, with which Ray Train finds the file system.
    """
    if not uri.startswith("s3://"):
        return uri, None
    found, path = FileSystem.from_uri(uri)  # asks for the bucket's region
    return path, PatientS3(found.region, ATTEMPTS)
