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

import pyarrow.compute as pc
import pytest
from PIL import Image

from ampere.cli import main
from ampere.records import SUMMARIES
from ampere.store.workspace import Workspace
from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# To start a head node: another test process may take a port between its check and its use.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A separate head node; yields the environment variables that point to it."""
    log: list[str] = []
    for _ in range(ATTEMPTS):
        # Ray creates sockets in this folder, with paths of at most 107 characters: pytest's
        # own folders are too deep.
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            head_node(folder) as (head, environment),
        ):
            log = until_started(head)
            if head.poll() is None:
                yield environment
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
def head_node(folder: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start a head node, and kill it at the end with all its processes."""
    dashboard = free_port()
    # Variables that Ray set in this process for its own cluster must not reach the other one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **clean,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-and-of-no-other-cluster",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2",
        f"--port={free_port()}", f"--dashboard-port={dashboard}", "--include-dashboard=true",
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
        yield head, environment
        # SIGKILL, since a head node takes half a minute to end on SIGTERM.
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(head.pid, signal.SIGKILL)


def submit(environment: dict[str, str], job: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a job file as a Ray job and wait for its end."""
    submit_here = ["ray", "job", "submit", "--working-dir", "."]
    command = [*submit_here, "--", "python", f"jobs/{job}.py", *flags]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_job_log_ends_with_the_summary_line(cluster: dict[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", "product_id", "domain", "text", "media"])
        writer.writerows([[f"clip-{i}", "p1", "live", "", "clip.mp4"] for i in range(3)])
    flags = ["--workspace", str(tmp_path / "workspace")]
    assert main(["prepare", *flags, "--manifest", str(manifest)]) == 0
    summarized = submit(cluster, "summarize", *flags)
    assert summarized.returncode == 0, summarized.stdout + summarized.stderr
    assert "3 clips without a transcript" in summarized.stdout
    log = [
        line
        for line in summarized.stdout.splitlines()
        if line.startswith(("summaries", "summarize"))
    ]
    assert log[-1].startswith("summarize: 3 rows done")
    summaries = Workspace.open(tmp_path / "workspace").table(SUMMARIES)
    assert summaries.count(pc.field("status") == "missing") == 3
    # All media are missing, so every row fails, and so does the job.
    decoded = submit(cluster, "decode", *flags)
    assert decoded.returncode == 1
    assert "3 failed (3 MissingMedia; see `ampere status --failures`)" in decoded.stdout


def test_relative_workspace_is_refused(cluster: dict[str, str]) -> None:
    refused = submit(cluster, "decode", "--workspace", "workspace")
    assert refused.returncode == 1
    assert "give an absolute path or a URI" in refused.stdout


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_run_of_all_stages_is_one_job(cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name, color in (("red", (200, 20, 20)), ("blue", (0, 0, 220))):
        Image.new("RGB", (64, 48), color).save(tmp_path / "media" / f"{name}.jpg")
    flags = ["--workspace", str(tmp_path / "w"), "--media-folder", str(tmp_path / "media")]
    # The time is over while Ray works; the index has nothing to take over yet.
    ended = submit(cluster, "run", *flags, "--budget-minutes", "0.02")
    assert ended.returncode == 1
    assert "decode: ended by the time budget of 0.02 minutes" in ended.stdout, ended.stderr
    done = submit(cluster, "run", *flags, "--until", "index")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "index: 2 rows done" in done.stdout and "Report: " in done.stdout
