"""Measure the memory of the gateway while every slot holds the largest upload that is allowed.

    python benchmarks/serve_memory.py --workspace W [--upload-mb 16] [--refused 4]

W is a workspace with a model and its index, such as that of `ampere demo`. For uploads as forms and
as JSON, in one run: clients fill all slots with a picture of the largest size, all but its last
byte; `--refused` times as many clients send the same and are refused; then the first ones send
their last bytes and are answered. Printed are the peaks of the gateway's resident memory over what
it was before, and as multiples of the bound, slots x largest upload. The isolated processes that
decode are not counted: each has a limit of its own.
"""

import argparse
import asyncio
import base64
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pyarrow.compute as pc
from serve_data import endpoint
from serve_load import FORM, JSON, Connection, form

from ampere.config.systems import named_settings
from ampere.records import SAMPLES
from ampere.store.workspace import Workspace

PORT = 18_767
GATEWAY = "ray::ServeReplica:ampere:Gateway"
MB = 2**20


def main() -> None:
    """Run both kinds of uploads, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--upload-mb", type=int, default=16)
    parser.add_argument("--refused", type=int, default=4, help="refused clients for each slot")
    arguments = parser.parse_args()
    workspace = Workspace.open(arguments.workspace)
    slots = named_settings(workspace.preset).serve.max_concurrent
    picture = padded(first_picture(workspace), arguments.upload_mb * MB)
    command = [
        *(sys.executable, "-m", "ampere.cli", "serve", "--workspace", workspace.uri),
        *("--serve.port", str(PORT), "--serve.max-upload-mb", str(arguments.upload_mb)),
    ]
    bound = slots * arguments.upload_mb
    print(f"{slots} slots x {arguments.upload_mb} MB = {bound} MB")
    with (
        tempfile.TemporaryDirectory() as scratch,
        endpoint(command, PORT, Path(scratch) / "log") as url,
    ):
        gateway = Gateway()
        for name, request in (("form", form_request(picture)), ("json", json_request(picture))):
            asyncio.run(load(url, request, 1, 0))  # the first one imports modules
            before = gateway.memory()
            statuses = asyncio.run(load(url, request, slots, arguments.refused * slots))
            over = gateway.peak() - before
            print(
                f"{name}: {before / MB:.0f} MB before, peak {over / MB:.0f} MB over it, "
                f"{over / MB / bound:.2f} x the bound; statuses {dict(statuses)}"
            )


class Gateway:
    """The process of the gateway that this process started, found by its title."""

    def __init__(self) -> None:
        children = psutil.Process().children(recursive=True)
        # Ray adds the name of the method that runs.
        (pid,) = (one.pid for one in children if " ".join(one.cmdline()).startswith(GATEWAY))
        self.folder = Path(f"/proc/{pid}")

    def memory(self) -> int:
        """Resident memory in bytes; its peak is counted from here on."""
        (self.folder / "clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak(self) -> int:
        """The largest resident memory since `memory`, in bytes."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = (self.folder / "status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024


def first_picture(workspace: Workspace) -> bytes:
    """The picture of a page."""
    rows = workspace.table(SAMPLES).read(["media_uris"], pc.field("domain") == "page")
    return Path(rows["media_uris"][0].as_py()[0]).read_bytes()


def padded(picture: bytes, size: int) -> bytes:
    """The same picture with that many bytes; those behind its end are ignored."""
    return picture + bytes(size - len(picture))


def form_request(picture: bytes) -> bytes:
    """A search by a file in a form."""
    return http_request(FORM, form(picture))


def json_request(picture: bytes) -> bytes:
    """A search by a file in base64."""
    return http_request(JSON, b'{"media":"' + base64.b64encode(picture) + b'"}')


def http_request(content_type: str, body: bytes) -> bytes:
    """A whole HTTP request."""
    head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Upload:
    """A request of which all but the last byte was sent."""

    connection: Connection
    last: bytes

    async def finish(self) -> int:
        """Send the last byte; returns the status of the answer."""
        reader, writer = self.connection
        writer.write(self.last)
        status = await answered(reader)
        writer.close()
        return status


async def load(url: str, request: bytes, slots: int, refused: int) -> Counter[int]:
    """Fill the slots, send further requests, and finish; returns how often each status came."""
    held = await asyncio.gather(*(begin(url, request) for _ in range(slots)))
    others = await asyncio.gather(*(whole(url, request) for _ in range(refused)))
    return Counter(others + await asyncio.gather(*(upload.finish() for upload in held)))


async def begin(url: str, request: bytes) -> Upload:
    """Send a request without its last byte."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(memoryview(request)[:-1])
    await writer.drain()
    return Upload((reader, writer), request[-1:])


async def whole(url: str, request: bytes) -> int:
    """Send a request; returns the status, which may come before all of it was sent."""
    try:
        return await (await begin(url, request)).finish()
    except OSError:  # the endpoint closed the connection while the body was on its way
        return 0


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of an answer."""
    line = await reader.readline()
    return int(line.split()[1]) if line else 0


if __name__ == "__main__":
    main()
