"""A running endpoint, started as users start it."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.compute as pc
import pytest

from ampere.records import SAMPLES
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from tests.helpers.processes import free_port, start

READY_WITHIN_S = 240
STARTED = "Ctrl-C stops"  # a line that `ampere serve` prints once all replicas run


@dataclass(frozen=True)
class Endpoint:
    """An endpoint over a workspace of the demo, and queries for it.

    Attributes:
        picture, clip: files of a page and a live of one product, which the index holds.
        words: a summary of that clip.
        product: its id.
    """

    url: str
    workspace: Workspace
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def client(self) -> httpx.Client:
        """A new client of this endpoint."""
        return httpx.Client(base_url=self.url, timeout=60)

    @property
    def sample(self) -> dict[str, Any]:
        """The first live of a product of the test split, of which there are pages, too."""
        where = (pc.field("domain") == "live") & (pc.field("split") == "test")
        return self.workspace.table(SAMPLES).read(None, where).sort_by("sample_id").to_pylist()[0]

    @property
    def product(self) -> str:
        return self.sample["product_id"]

    @property
    def clip(self) -> Path:
        return Path(self.sample["media_uris"][0])

    @property
    def picture(self) -> Path:
        where = (pc.field("domain") == "page") & (pc.field("product_id") == self.product)
        (page,) = self.workspace.table(SAMPLES).read(None, where).to_pylist()
        return Path(page["media_uris"][0])

    @property
    def words(self) -> str:
        (words,) = texts_of(self.workspace, "llm", [self.sample["sample_id"]]).to_pylist()
        return words


def clips(workspace: Workspace) -> list[dict[str, Any]]:
    """The rows of the shorts and lives, in the order of their ids."""
    rows = workspace.table(SAMPLES).read(None, pc.field("domain") != "page")
    return rows.sort_by("sample_id").to_pylist()


@contextlib.contextmanager
def serving(workspace: Workspace, log: Path, flags: Sequence[str] = ()) -> Iterator[Endpoint]:
    """Run `ampere serve` in a process of its own until the block ends."""
    port = free_port()
    process = start("serve", workspace, ["--serve.port", str(port), *flags], log)
    endpoint = Endpoint(f"http://127.0.0.1:{port}", workspace, process, log)
    try:
        wait_until_ready(endpoint)
        yield endpoint
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()


def wait_until_ready(endpoint: Endpoint) -> None:
    """Wait until all replicas run; fail if the process ends or takes too long.

    `/readyz` alone is true once one replica of each deployment runs.
    """
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        if STARTED in endpoint.log.read_text() and is_ready(endpoint):
            return
        try:  # the pause between two looks
            endpoint.process.wait(timeout=0.1)
            pytest.fail(f"the endpoint ended by itself: {endpoint.log.read_text()[-3000:]}")
        except subprocess.TimeoutExpired:
            continue
    pytest.fail(f"not ready in {READY_WITHIN_S} s: {endpoint.log.read_text()[-3000:]}")


def is_ready(endpoint: Endpoint) -> bool:
    """Whether a gateway says that models and indexes are loaded."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{endpoint.url}/readyz", timeout=10).status_code == 200
    return False
