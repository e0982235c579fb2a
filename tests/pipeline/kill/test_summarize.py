"""Kill and resume: a summarize job whose vLLM engine dies loses and doubles no row."""

import random
from itertools import islice
from pathlib import Path

import pyarrow.compute as pc
import pytest

from ampere.records import FAILURES, SAMPLES, SUMMARIES
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.processes import ids, kill, parts_of, start, wait_until
from tests.helpers.workloads import new_transcripts

# Engines that die are in `make test` too: tests/pipeline/runner/test_engine_patches.py.
pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]
KNOWN_ROWS = 36  # transcripts of the demo
NEW_ROWS = 12  # others; together enough that the job is half done when an engine dies


@pytest.mark.parametrize("engines", [1, 2], ids=["1 engine", "2 engines"])
def test_kill_engine(workspace: Workspace, demo: DemoRun, tmp_path: Path, engines: int) -> None:
    """Every row is answered, and known transcripts get the answers that they got in the demo.

    The death of the driver is tested with the other stages, which share the runner.
    """
    known = dict(islice(answers(demo.workspace).items(), KNOWN_ROWS * engines))
    transcripts = [*known, *new_transcripts(NEW_ROWS * engines)]
    workspace.table(SAMPLES).append(
        [
            {"sample_id": f"s{i}", "domain": "live", "text": text}
            for i, text in enumerate(transcripts)
        ]
    )
    # Small batches, so that the job is half done when the engine dies.
    flags = ["--summarize.workers", str(engines), "--summarize.cpus", "0.5"]
    flags += ["--summarize.batch-size", "8", "--summarize.max-num-seqs", "8"]
    log = tmp_path / "log"
    job = start("summarize", workspace, flags, log)
    wait_until(
        job,
        lambda: len(parts_of(job, "engine")) >= engines and workspace.table(SUMMARIES).count() > 0,
        log,
    )
    kill("engine", job, random.Random(0))
    assert workspace.table(SUMMARIES).count() < len(transcripts)
    assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    answered = ids(workspace, SUMMARIES) + ids(workspace, FAILURES)
    assert sorted(answered) == ids(workspace, SAMPLES)
    # Answers that are no summary may fail, but no row fails because an engine died.
    assert len(ids(workspace, FAILURES)) < len(transcripts) // 6
    assert workspace.table(FAILURES).count(pc.field("error_type") != "AnswerError") == 0
    again = answers(workspace)
    # Batches of other sizes round differently, which may change a close choice: in the past, of
    # one answer in a hundred at most.
    assert sum(again.get(text) != answer for text, answer in known.items()) <= 1 + len(known) // 100


def answers(workspace: Workspace) -> dict[str, str]:
    """Transcript -> raw output of the language model, of all clips with a summary."""
    texts = (
        workspace.table(SAMPLES)
        .read(["sample_id", "text"], (pc.field("domain") != "page") & pc.field("text").is_valid())
        .to_pylist()
    )
    rows = workspace.table(SUMMARIES).read(
        ["sample_id", "raw_output"],
        (pc.field("method") == "llm") & pc.field("raw_output").is_valid(),
    )
    output = dict(zip(rows["sample_id"].to_pylist(), rows["raw_output"].to_pylist(), strict=True))
    return {row["text"]: output[row["sample_id"]] for row in texts if row["sample_id"] in output}
