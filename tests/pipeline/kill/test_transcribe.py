"""Kill and rerun: a transcribe job that dies half way loses and doubles no clip."""

import os
import random
import signal
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config.transcribe import TranscribeSettings
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import FAILURES, SAMPLES, TRANSCRIPTS
from ampere.store.workspace import Workspace
from tests.helpers.processes import ids, kill, parts_of, start, wait_for_rows, wait_until
from tests.helpers.speech_models import write_faster_whisper, write_whisper
from tests.helpers.workloads import add_clips

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e, pytest.mark.usefixtures("local_ray")]

BATCH = 2


@pytest.mark.nightly  # the runner is the one that test_kill_decode kills
@pytest.mark.parametrize(
    ("clips", "kills"),
    [(30, 1), (90, 5)],
    ids=["1 model killed", "5 models killed"],
)
def test_kill_transcribe(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], clips: int, kills: int
) -> None:
    """SIGKILL to actors with the speech model, which costs nothing, then to the whole job."""
    bad = add_clips(workspace, tmp_path, clips)
    model = write_faster_whisper(tmp_path / "model", write_whisper(tmp_path / "whisper"))
    settings = TranscribeSettings(model=str(model), language="en", cpus=0.5, batch_size=BATCH)
    flags = ["--transcribe.model", str(model), "--transcribe.language", "en"]
    flags += ["--transcribe.cpus", "0.5", "--transcribe.batch-size", str(BATCH)]
    rng, log, table = random.Random(0), tmp_path / "log", workspace.table(TRANSCRIPTS)
    job = start("transcribe", workspace, flags, log)
    for number in range(kills):
        wait_for_rows(job, table, rng.randint(1, 2), log)
        # Rows may still arrive while the next actor starts.
        wait_until(job, lambda: bool(parts_of(job, "speech model")), log)
        kill("speech model", job, rng)
        if not number:
            assert main(["transcribe", "--workspace", workspace.uri, *flags]) == 1
            assert "another job is writing transcribe" in capsys.readouterr().err
    wait_for_rows(job, table, rng.randint(1, 3), log)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = transcripts(workspace)
    assert 0 < len(before) < clips - len(bad)

    report = run_stage(TranscribeStage(workspace, settings), workspace, settings=settings)

    rows = transcripts(workspace)
    assert ids(workspace, FAILURES) == sorted(bad)
    assert sorted([*rows, *bad]) == ids(workspace, SAMPLES)
    assert {name: rows[name] for name in before} == before
    # Each audio that was left was transcribed once.
    done = {row["audio_hash"] for row in before.values()}
    seconds = {row["audio_hash"]: row["seconds"] for row in rows.values()}
    left = sum(seconds[audio] for audio in seconds.keys() - done)
    assert report.totals["audio s"] == pytest.approx(left) and report.unprocessed == 0
    assert len(seconds) <= clips // 2 < len(rows)


def transcripts(workspace: Workspace) -> dict[str, dict]:
    """Rows by sample; fails if a sample has two."""
    rows = workspace.table(TRANSCRIPTS).read().to_pylist()
    by_id = {row["sample_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id
