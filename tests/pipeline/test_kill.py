"""Kill and rerun: a job that dies by SIGKILL half-way, or whose engine does, loses no row and doubles none."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from ampere.records import EMBEDDINGS, FAILURES, SAMPLES, SUMMARIES
from ampere.store.workspace import Workspace
from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import recognize, say
from tests.helpers.demo import DemoRun
from tests.helpers.processes import ids, kill, kill_half_way, parts_of, run_whole, start, wait_until

pytestmark = pytest.mark.timeout(900)
NEW_ROWS = (
    20  # transcripts besides the demo's: enough that both engines are at work when one is killed
)


def test_summarize(workspace: Workspace, demo: DemoRun, tmp_path: Path) -> None:
    """An engine that dies costs nothing, and a transcript that was summarized elsewhere gets the same answer.

    The death of the job is as in the other stages, which share its runner.
    """
    known = answers(demo.workspace)
    transcripts = [*known, *many_transcripts(NEW_ROWS)]
    workspace.table(SAMPLES).append(
        [
            {"sample_id": f"s{i}", "domain": "live", "text": text}
            for i, text in enumerate(transcripts)
        ]
    )
    # Small engines and batches, so that the kills come in the midst of it.
    flags = ["--summarize.workers", "2", "--summarize.cpus", "0.5", "--summarize.batch-size", "8"]
    flags += ["--summarize.max-num-seqs", "8"]
    job, log = start("summarize", workspace, flags, tmp_path / "log"), tmp_path / "log"
    wait_until(
        job,
        lambda: len(parts_of(job, "engine")) >= 2 and workspace.table(SUMMARIES).count() > 0,
        log,
    )
    kill("engine", job, random.Random(0))
    assert workspace.table(SUMMARIES).count() < len(transcripts)
    assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    answered = ids(workspace, SUMMARIES) + ids(workspace, FAILURES)
    assert sorted(answered) == ids(workspace, SAMPLES)
    # Answers that are no summary, if any; none for the deaths.
    assert len(ids(workspace, FAILURES)) < len(transcripts) // 6
    assert workspace.table(FAILURES).count("error_type != 'AnswerError'") == 0
    again = answers(workspace)
    # Batches of other sizes round differently, which may turn a close choice; more than one in a hundred it never was.
    assert sum(again.get(text) != answer for text, answer in known.items()) <= 1 + len(known) // 100


def answers(workspace: Workspace) -> dict[str, str]:
    """Transcript -> the language model's own words, of all clips that were summarized."""
    texts = (
        workspace.table(SAMPLES)
        .read(["sample_id", "text"], "domain != 'page' AND text IS NOT NULL")
        .to_pylist()
    )
    rows = workspace.table(SUMMARIES).read(
        ["sample_id", "raw_output"], "method = 'llm' AND raw_output IS NOT NULL"
    )
    said = dict(zip(rows["sample_id"].to_pylist(), rows["raw_output"].to_pylist(), strict=True))
    return {row["text"]: said[row["sample_id"]] for row in texts if row["sample_id"] in said}


def many_transcripts(count: int) -> list[str]:
    rng = random.Random(0)
    return [recognize(say(product, rng, lines=8), rng) for product in demo_products(rng, count)]


def test_embed(demo: DemoRun) -> None:
    workspace, flags = demo.workspace, ["--embed.batch-size", "4"]
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


def test_train(demo: DemoRun, tmp_path: Path) -> None:
    """A training whose driver dies with all its workers goes on from its last checkpoint."""
    workspace, log = demo.workspace, tmp_path / "log"
    flags = ["--train.name", "killed", "--train.text", "none", "--train.epochs", "24", "--train.workers", "1",
             "--train.batch-size", "8", "--train.log-every", "1", "--train.checkpoint-every", "3"]  # fmt: skip
    metrics = Path(workspace.uri) / "logs" / "killed" / "metrics.jsonl"

    def lines() -> list[str]:
        return metrics.read_text("utf-8").splitlines() if metrics.exists() else []

    job = start("train", workspace, flags, log)
    wait_until(job, lambda: len(lines()) >= 12, log)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = lines()
    run_whole("train", workspace, flags)
    after = lines()
    steps = [json.loads(line)["step"] for line in after]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > len(before)
    # Steps before the last checkpoint were not made again: even their times are the same.
    kept = (len(before) - 1) // 3 * 3 - 3
    assert after[:kept] == before[:kept] and kept >= 6
    assert not workspace.names("runs")
