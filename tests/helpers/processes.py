"""Start a stage as users do, and kill it or one of its processes while it runs."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest

from ampere.records import TableSpec
from ampere.store.table import Table
from ampere.store.workspace import Workspace


def command(stage: str, workspace: Workspace, flags: Sequence[str]) -> list[str]:
    """The command line of a stage."""
    return [sys.executable, "-m", "ampere.cli", stage, "--workspace", workspace.uri, *flags]


def kill_half_way(stage: str, workspace: Workspace, output: TableSpec, flags: Sequence[str]) -> int:
    """Start a job, kill it and its children after its first commit; returns its rows."""
    table = workspace.table(output)
    with subprocess.Popen(
        command(stage, workspace, flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as job:
        while table.count() == 0:
            try:  # the pause between two looks
                job.wait(timeout=0.02)
                pytest.fail(f"{stage} ended by itself: {job.stdout.read().decode()[-3000:]}")
            except subprocess.TimeoutExpired:
                continue
        os.killpg(job.pid, signal.SIGKILL)
    return table.count()


def ids(workspace: Workspace, spec: TableSpec, where: pc.Expression | None = None) -> list[str]:
    """Sorted sample ids of a table's rows."""
    return sorted(workspace.table(spec).read(["sample_id"], where)["sample_id"].to_pylist())


def command_line(process: psutil.Process) -> list[str]:
    """Its arguments; empty if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def start(
    stage: str, workspace: Workspace, flags: Sequence[str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a stage in a process group of its own; its output goes to `log`."""
    # By default a driver waits a minute for a head node that is dead.
    env = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with log.open("w") as file:
        return subprocess.Popen(
            command(stage, workspace, flags),
            stdout=file,
            stderr=file,
            env=env,
            start_new_session=True,
        )


def wait_for_rows(job: subprocess.Popen[bytes], table: Table, count: int, log: Path) -> None:
    """Wait until a job has committed `count` more rows."""
    goal = table.count() + count
    wait_until(job, lambda: table.count() >= goal, log)


def wait_until(job: subprocess.Popen[bytes], happened: Callable[[], bool], log: Path) -> None:
    """Wait for a condition; fail if the job ends first."""
    while not happened():
        try:  # the pause between two looks
            job.wait(timeout=0.02)
            pytest.fail(f"the job ended by itself: {log.read_text()[-3000:]}")
        except subprocess.TimeoutExpired:
            continue


PARTS = {
    "worker": ["ray::IDLE", "ray::MapBatches"],
    "child": ["ampere.media.isolated"],
    "head": ["raylet", "gcs_server"],
    "engine": ["VLLM::EngineCore"],
    "speech model": ["TranscribePieces"],
    "driver": [],
}


def parts_of(job: subprocess.Popen[bytes], kind: str) -> list[psutil.Process]:
    """The processes of a running job that do one kind of work."""
    parts = psutil.Process(job.pid).children(recursive=True)
    return [
        p for p in parts if any(name in part for part in command_line(p) for name in PARTS[kind])
    ]


def kill(victim: str, job: subprocess.Popen[bytes], rng: random.Random) -> None:
    """SIGKILL a process of a running job of one kind; all of them for the head node."""
    chosen = parts_of(job, victim)
    if victim == "driver":
        job.kill()
    else:
        assert chosen, f"no {victim} is running"
        for process in chosen if victim == "head" else [rng.choice(chosen)]:
            process.kill()
    if victim in ("driver", "head"):
        job.wait(timeout=120)


def free_port() -> int:
    """A free port below the ephemeral range, from which another process could take it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
