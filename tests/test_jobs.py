"""The stages as Ray jobs: `ray start --head`, then `ray job submit -- python jobs/<stage>.py`."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ampere.records import SUMMARIES
from ampere.store.workspace import Workspace
from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(300)


TRIES = 3  # to start a head: between the look at a port and its use another process of the tests may take it


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A head node of its own; yields the environment that reaches it."""
    told = []
    for _ in range(TRIES):
        # Its sockets lie under it, whose names may have 107 characters: pytest's own folders are too deep.
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            head_node(folder) as (head, reached),
        ):
            told = until_started(head)
            if head.poll() is None:
                yield reached
                return
    pytest.fail(f"no head node started: {''.join(told)}")


def until_started(head: subprocess.Popen[str]) -> list[str]:
    """What a head node prints until it runs or has ended."""
    told = []
    for line in head.stdout or ():
        told.append(line)
        if "Ray runtime started" in line:
            return told
    head.wait()
    return told


@contextmanager
def head_node(folder: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    dashboard = free_port()
    # What Ray put into this process's environment for its own cluster must not reach another.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **clean,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-and-of-no-other-cluster",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", f"--port={free_port()}",
        f"--dashboard-port={dashboard}", "--include-dashboard=true", f"--temp-dir={folder}",
        # Another Ray of this machine, such as that of other tests, holds the usual ports of the agent.
        f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as head:
        yield head, environment
        with suppress(ProcessLookupError):  # it has ended, and all that it started with it
            os.killpg(
                head.pid, signal.SIGKILL
            )  # a head that is asked to end takes half a minute over it


def submit(environment: dict[str, str], job: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        "ray",
        "job",
        "submit",
        "--working-dir",
        ".",
        "--",
        "python",
        f"jobs/{job}.py",
        *flags,
    ]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_jobs_run_and_their_log_ends_with_the_summary_line(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", "product_id", "domain", "text", "media"])
        writer.writerows([[f"clip-{i}", "p1", "live", "", "clip.mp4"] for i in range(3)])
    flags = ["--workspace", str(tmp_path / "workspace")]
    prepared = submit(cluster, "prepare", *flags, "--manifest", str(manifest))
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    summarized = submit(cluster, "summarize", *flags)
    assert summarized.returncode == 0, summarized.stdout + summarized.stderr
    assert "3 clips have no transcript" in summarized.stdout
    log = [line for line in summarized.stdout.splitlines() if line.startswith(("summar", "decode"))]
    assert log[-1].startswith("summarize: 3 rows done")
    assert Workspace.open(tmp_path / "workspace").table(SUMMARIES).count("status = 'missing'") == 3
    # All media are missing: every row fails with its reason, and the job says so by its exit status.
    decoded = submit(cluster, "decode", *flags)
    assert decoded.returncode == 1
    assert "3 failed (3 MissingMedia; see `ampere status --failures`)" in decoded.stdout


def test_a_relative_workspace_is_refused(cluster: dict[str, str]) -> None:
    refused = submit(cluster, "decode", "--workspace", "workspace")
    assert refused.returncode == 1
    assert "give an absolute path or a URI" in refused.stdout
