"""The stages as Ray jobs: `ray start --head`, then `ray job submit -- python jobs/<stage>.py`."""

import csv
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.compute as pc
import pytest
from PIL import Image

from ampere.cli import main
from ampere.records import SUMMARIES
from ampere.store.workspace import Workspace
from tests.helpers.ray_head import ray_head

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    """A separate head node; yields the environment variables that point to it."""
    with ray_head() as head:
        yield head.environment


def submit(
    environment: Mapping[str, str], job: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Run a job file as a Ray job and wait for its end."""
    submit_here = ["ray", "job", "submit", "--working-dir", "."]
    command = [*submit_here, "--", "python", f"jobs/{job}.py", *flags]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_job_log_ends_with_the_summary_line(cluster: Mapping[str, str], tmp_path: Path) -> None:
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


@pytest.mark.nightly  # tests/test_cli.py checks it without a job
def test_relative_workspace_is_refused(cluster: Mapping[str, str]) -> None:
    refused = submit(cluster, "decode", "--workspace", "workspace")
    assert refused.returncode == 1
    assert "give an absolute path or a URI" in refused.stdout


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_run_of_all_stages_is_one_job(cluster: Mapping[str, str], tmp_path: Path) -> None:
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
