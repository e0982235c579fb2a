"""A separate head node of Ray, started by the command line as users do."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.processes import free_port

BIN = Path(sys.executable).parent
# To start a head node: another test process may take a port between its check and its use.
ATTEMPTS = 3
TOKEN = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-of-this-test-and-of-no-other-cluster",
}


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        folder: of its session; not that of any other Ray.
        address: for RAY_ADDRESS.
        environment: variables of processes that use it, without RAY_ADDRESS.
    """

    folder: Path
    address: str
    environment: Mapping[str, str]


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start a head node, and kill it at the end with all its processes."""
    log: list[str] = []
    for _ in range(ATTEMPTS):
        # Ray creates sockets in this folder, with paths of at most 107 characters: pytest's
        # own folders are too deep.
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            head_node(Path(folder)) as (process, head),
        ):
            log = until_started(process)
            if process.poll() is None:
                yield head
                return
    pytest.fail(f"no head node started: {''.join(log)}")


def until_started(head: subprocess.Popen[str]) -> list[str]:
    """Output of a head node until it has started or ended."""
    log = []
    for line in head.stdout or ():
        log.append(line)
        if "Ray runtime started" in line:
            return log
    head.wait()
    return log


@contextmanager
def head_node(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Head]]:
    """The process of a head node, which may not have started yet."""
    port, dashboard = free_port(), free_port()
    # Variables that Ray set in this process for its own cluster must not reach the other one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **clean,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        **TOKEN,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2",
        f"--port={port}", f"--dashboard-port={dashboard}", "--include-dashboard=true",
        f"--temp-dir={folder}",
        # Another Ray on this machine, as of other tests, uses the default ports of the agent.
        f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as head:
        try:
            yield head, Head(folder, f"127.0.0.1:{port}", environment)
        finally:
            # SIGKILL, since a head node takes half a minute to end on SIGTERM.
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(head.pid, signal.SIGKILL)
