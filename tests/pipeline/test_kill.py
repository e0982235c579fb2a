"""Kill and rerun: a job that dies by SIGKILL half-way loses no row and doubles none."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from ampere.catalog.goods import demo_products
from ampere.catalog.speech import recognise, say
from ampere.cli import main
from ampere.records import EMBEDDINGS, FAILURES, FRAMES, SAMPLES, SUMMARIES, TableSpec
from ampere.table import Table
from ampere.workspace import Workspace
from tests.conftest import DemoRun, manifest_rows, write_manifest

pytestmark = pytest.mark.timeout(900)
ROWS = 180  # transcripts to summarize: enough that both engines are at work when one is killed


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


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_decode(tmp_path: Path, catalogue: Path) -> None:
    """Ten SIGKILLs at random moments, to the driver, to a worker or its child, and to the head, lose nothing."""
    workspace, bad = many_clips(tmp_path, catalogue)
    rng, flags = random.Random(0), ["--decode.batch-size", "4"]
    victims = ["worker", "child", "driver", "worker", "child", "head", "worker", "child", "worker", "driver"]
    job, log = None, tmp_path / "log"
    for victim in victims:
        if job is None or job.poll() is not None:
            job = start("decode", workspace, flags, log)
        wait_for_rows(job, workspace.table(FRAMES), rng.randint(1, 40), log)
        kill(victim, job, rng)
    if job.wait(timeout=120) != 0:
        run_whole("decode", workspace, flags)
    frames, failures = ids(workspace, FRAMES), ids(workspace, FAILURES)
    assert failures == sorted(bad)
    assert sorted(frames + failures) == ids(workspace, SAMPLES)
    assert len(set(frames)) == len(frames)


def many_clips(tmp_path: Path, catalogue: Path) -> tuple[Workspace, list[str]]:
    """A prepared workspace of 1,400 samples, and the ids of the 5 % whose file is missing or cut off."""
    rows = manifest_rows(catalogue)
    (tmp_path / "cut.mp4").write_bytes(next(catalogue.glob("shorts/*.mp4")).read_bytes()[:900])
    copies = [row | {"sample_id": f"{row['sample_id']}-{copy}"} for copy in range(14) for row in rows]
    bad = copies[::20]
    for i, row in enumerate(bad):
        row["media"] = ["/nowhere.mp4", str(tmp_path / "cut.mp4")][i % 2]
    write_manifest(tmp_path / "manifest.csv", copies)
    uri = str(tmp_path / "workspace")
    assert main(["prepare", "--manifest", str(tmp_path / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri), [row["sample_id"] for row in bad]


def start(stage: str, workspace: Workspace, flags: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    # A driver whose head is gone waits for it for a minute; five seconds tell as much.
    env = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with log.open("w") as file:
        return subprocess.Popen(
            command(stage, workspace, flags), stdout=file, stderr=file, env=env, start_new_session=True
        )


def wait_for_rows(job: subprocess.Popen[bytes], table: Table, count: int, log: Path) -> None:
    """Wait until a job has committed so many rows more."""
    goal = table.count() + count
    wait_until(job, lambda: table.count() >= goal, log)


def wait_until(job: subprocess.Popen[bytes], happened: Callable[[], bool], log: Path) -> None:
    while not happened():
        try:  # waiting for the job is the pause between two looks
            job.wait(timeout=0.02)
            pytest.fail(f"the job ended by itself: {log.read_text()[-3000:]}")
        except subprocess.TimeoutExpired:
            continue


PARTS = {
    "worker": ["ray::IDLE", "ray::MapBatches"],
    "child": ["ampere.media.isolated"],
    "head": ["raylet", "gcs_server"],
    "engine": ["VLLM::EngineCore"],
    "driver": [],
}


def parts_of(job: subprocess.Popen[bytes], kind: str) -> list[psutil.Process]:
    """The processes of a running job that do one kind of work."""
    parts = psutil.Process(job.pid).children(recursive=True)
    return [p for p in parts if any(name in part for part in command_line(p) for name in PARTS[kind])]


def kill(victim: str, job: subprocess.Popen[bytes], rng: random.Random) -> None:
    """SIGKILL a part of a running job: what dies with it is dead, what can go on goes on."""
    chosen = parts_of(job, victim)
    if victim == "driver":
        job.kill()
    else:
        assert chosen, f"no {victim} is running"
        for process in chosen if victim == "head" else [rng.choice(chosen)]:
            process.kill()
    if victim in ("driver", "head"):
        job.wait(timeout=120)


def test_summarize(workspace: Workspace, demo: DemoRun, tmp_path: Path) -> None:
    """An engine that dies costs nothing, and a transcript that was summarized elsewhere gets the same answer.

    The death of the job is as in the other stages, which share its runner.
    """
    known = answers(demo.workspace)
    transcripts = [*known, *many_transcripts(ROWS - len(known))]
    workspace.table(SAMPLES).append(
        [{"sample_id": f"s{i}", "domain": "live", "text": text} for i, text in enumerate(transcripts)]
    )
    # Small engines and batches, so that the kills come in the midst of it.
    flags = ["--summarize.workers", "2", "--summarize.cpus", "0.5", "--summarize.batch-size", "4"]
    flags += ["--summarize.max-num-seqs", "4"]
    job, log = start("summarize", workspace, flags, tmp_path / "log"), tmp_path / "log"
    wait_until(job, lambda: len(parts_of(job, "engine")) >= 2 and workspace.table(SUMMARIES).count() > 0, log)
    kill("engine", job, random.Random(0))
    assert workspace.table(SUMMARIES).count() < ROWS
    assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    answered = ids(workspace, SUMMARIES) + ids(workspace, FAILURES)
    assert sorted(answered) == ids(workspace, SAMPLES)
    assert len(ids(workspace, FAILURES)) < ROWS // 6  # answers that are no summary, if any; none for the deaths
    assert workspace.table(FAILURES).count("error_type != 'AnswerError'") == 0
    again = answers(workspace)
    # Batches of other sizes round differently, which may turn a close choice; more than one in a hundred it never was.
    assert sum(again.get(text) != answer for text, answer in known.items()) <= len(known) // 100


def answers(workspace: Workspace) -> dict[str, str]:
    """Transcript -> the language model's own words, of all clips that were summarized."""
    texts = workspace.table(SAMPLES).read(["sample_id", "text"], "domain != 'page' AND text IS NOT NULL").to_pylist()
    rows = workspace.table(SUMMARIES).read(["sample_id", "raw_output"], "method = 'llm' AND raw_output IS NOT NULL")
    said = dict(zip(rows["sample_id"].to_pylist(), rows["raw_output"].to_pylist(), strict=True))
    return {row["text"]: said[row["sample_id"]] for row in texts if row["sample_id"] in said}


def many_transcripts(count: int) -> list[str]:
    rng = random.Random(0)
    return [recognise(say(product, rng, lines=8), rng) for product in demo_products(rng, count)]


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
    flags = ["--train.name", "killed", "--train.text", "none", "--train.epochs", "10", "--train.workers", "1",
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
