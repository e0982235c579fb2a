"""Where a training keeps its checkpoints while it runs."""

import os
from urllib.parse import urlsplit

from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem

# Pauses of up to 1, 2, 4, ... and at most 20 seconds: a store may be away for a minute or more.
# Arrow's own strategy gives up after six seconds, and ends the training.
ATTEMPTS = 10


def checkpoint_storage(uri: str) -> tuple[str, FileSystem | None]:
    """Path and file system of a folder for Ray Train.

    Args:
        uri: a local path or a cloud URI.

    Returns:
        For S3 the path without its scheme and a file system that tries again for minutes; for
        others the URI and None, with which Ray Train finds the file system.
    """
    if not uri.startswith("s3://"):
        return uri, None
    found, path = FileSystem.from_uri(uri)  # reads the bucket's region
    # S3FileSystem does not read this variable, as `from_uri` and boto3 do.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    server = urlsplit(endpoint) if endpoint else None
    return path, S3FileSystem(
        region=found.region,
        scheme=server.scheme if server else None,
        endpoint_override=server.netloc if server else None,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
