"""Kill and rerun: a job that dies by SIGKILL half-way loses no row and doubles none."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config import PRESETS
from ampere.pipeline.summarize import settle_missing, summarize_stage
from ampere.records import EMBEDDINGS, FAILURES, FRAMES, SAMPLES, SUMMARIES, TableSpec
from ampere.workspace import Workspace
from tests.conftest import DemoRun, manifest_rows, write_manifest

pytestmark = pytest.mark.timeout(600)


def command(stage: str, workspace: Workspace, flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "ampere.cli", stage, "--workspace", workspace.uri, *flags]


def kill_half_way(stage: str, workspace: Workspace, output: TableSpec, flags: Sequence[str], start: int = 0) -> int:
    """Start a job, kill it and its children once its first rows are committed; returns how many it had."""
    table = workspace.table(output)
    with subprocess.Popen(
        command(stage, workspace, flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as job:
        while table.count() == start:
            try:  # waiting for the job is the pause between two looks
                job.wait(timeout=0.02)
                pytest.fail(f"{stage} ended by itself: {job.stdout.read().decode()[-3000:]}")
            except subprocess.TimeoutExpired:
                continue
        os.killpg(job.pid, signal.SIGKILL)
    return table.count() - start


def run_whole(stage: str, workspace: Workspace, flags: Sequence[str]) -> str:
    result = subprocess.run(command(stage, workspace, flags), capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    return result.stdout.splitlines()[-1]


def ids(workspace: Workspace, spec: TableSpec, where: str | None = None) -> list[str]:
    return sorted(workspace.table(spec).read(["sample_id"], where)["sample_id"].to_pylist())


def test_decode(tmp_path: Path, catalogue: Path) -> None:
    rows = manifest_rows(catalogue)
    for row in rows[::20]:  # one file in twenty is bad
        row["media"] = "/nowhere.mp4"
    copies = [row | {"sample_id": f"{row['sample_id']}-{copy}"} for copy in range(4) for row in rows]
    write_manifest(tmp_path / "manifest.csv", copies)
    uri = str(tmp_path / "workspace")
    assert main(["prepare", "--manifest", str(tmp_path / "manifest.csv"), "--workspace", uri]) == 0
    workspace = Workspace.open(uri)
    flags = ["--decode.batch-size", "4"]
    done = kill_half_way("decode", workspace, FRAMES, flags)
    assert 0 < done < 380
    run_whole("decode", workspace, flags)
    frames, failures = ids(workspace, FRAMES), ids(workspace, FAILURES)
    assert len(frames) == 380 and len(failures) == 20
    assert sorted(frames + failures) == ids(workspace, SAMPLES)


def test_summarize(prepared: Workspace) -> None:
    # Clips without a transcript need no engine and come first; the kill shall come while the engine answers.
    stage = summarize_stage(prepared, PRESETS["demo"]().summarize)
    settled, _ = settle_missing(stage.plan(prepared).due(retry_failed=False))
    prepared.table(SUMMARIES).upsert(settled)
    flags = ["--summarize.batch-size", "2"]
    done = kill_half_way("summarize", prepared, SUMMARIES, flags, start=settled.num_rows)
    assert 0 < done < 80 - settled.num_rows
    run_whole("summarize", prepared, flags)
    answered = ids(prepared, SUMMARIES) + ids(prepared, FAILURES)
    assert sorted(answered) == ids(prepared, SAMPLES, "domain != 'page'")


def test_embed(demo: DemoRun) -> None:
    workspace, flags = demo.workspace, ["--embed.batch-size", "2"]
    name = workspace.table(EMBEDDINGS).read(["model"])["model"].to_pylist()
    model = next(n for n in name if n.startswith("ampere@"))
    before = ids(workspace, EMBEDDINGS, f"model = '{model}'")
    workspace.table(EMBEDDINGS).delete(f"model = '{model}'")
    others = workspace.table(EMBEDDINGS).count()
    done = kill_half_way("embed", workspace, EMBEDDINGS, flags, start=others)
    assert 0 < done < len(before)
    last = run_whole("embed", workspace, flags)
    assert f"{done} were done before" in last
    assert ids(workspace, EMBEDDINGS, f"model = '{model}'") == before
