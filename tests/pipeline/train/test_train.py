"""Trainings on Ray Train. Three in all: each starts many processes."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from ampere.cli import main
from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.models.checkpoint import load_weights
from ampere.models.embedder import Embedder
from ampere.pipeline.train import stage
from ampere.pipeline.train.stage import training_data
from ampere.records import SAMPLES, Domain, Split
from ampere.store.embeddings import embedding_tables
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.data import FrameSource, TrainingSet
from tests.helpers.embeddings import embeddings_of
from tests.helpers.models import save_tiny_clip
from tests.helpers.train_stage import DyingFrames, train_in_process

pytestmark = pytest.mark.timeout(600)
SMALL = ["--train.epochs", "2", "--train.text", "raw", "--train.batch-size", "8"]
FROM_SCRATCH = [
    *("--model.vision-weights", "", "--model.no-freeze-vision", "--model.missing-frames", "black"),
    *("--model.image-size", "64", "--model.vision-width", "128", "--model.vision-layers", "3"),
    *("--model.vision-heads", "4"),
]
ONE_WORKER = ["--train.workers", "1"]


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory, catalog: Path, local_ray: None) -> Workspace:
    """A workspace with the frames of the generated catalog."""
    uri = str(tmp_path_factory.mktemp("train") / "workspace")
    flags = ["--preset", "demo", "--manifest", str(catalog / "manifest.csv")]
    assert main(["prepare", *flags, "--workspace", uri]) == 0
    assert main(["decode", "--workspace", uri]) == 0
    return Workspace.open(uri)


@pytest.fixture(scope="module")
def two_workers(decoded: Workspace) -> list[str]:
    """Output lines of a training on two Ray workers."""
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["train", "--workspace", decoded.uri, *SMALL, "--train.workers", "2"]) == 0
    return output.getvalue().splitlines()


def model_settings(workspace: Workspace, name: str) -> dict:
    return json.loads((workspace.fetch(f"models/{name}") / "settings.json").read_text("utf-8"))


def test_two_workers_train_a_model_that_embeds(decoded: Workspace, two_workers: list[str]) -> None:
    assert two_workers[-1].startswith("train: 10 products done in")
    folder, settings = decoded.fetch("models/ampere"), model_settings(decoded, "ampere")
    assert settings["train"]["workers"] == 2
    text = (folder / "metrics.jsonl").read_text("utf-8")
    last = json.loads(text.splitlines()[-1])
    assert last["epoch"] == 2 and last["step"] == settings["scores"]["step"]
    # The weights, and the class centers of each rank.
    assert sorted(path.suffix for path in folder.iterdir()).count(".safetensors") == 3
    logs = Path(decoded.uri) / "logs" / "ampere"
    assert (logs / "metrics.jsonl").read_text("utf-8") == text
    assert any(path.name.startswith("events.out.tfevents") for path in logs.iterdir())
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()[:6]
    vectors = Embedder(folder).embed(
        LanceFrames(decoded).take(ids),
        ["云岚薄荷洗发水", None, "", "x", None, None],
        [Domain.PAGE] * 6,
    )
    assert vectors.shape == (6, 128)
    assert abs((vectors**2).sum(axis=1) - 1).max() < 1e-5
    assert not [run for run in decoded.names("runs") if run.startswith("ampere")]


def test_only_training_products_are_trained_on(decoded: Workspace, two_workers: list[str]) -> None:
    rows = decoded.table(SAMPLES).read(["product_id"], pc.field("split") == Split.TRAIN)
    products = sorted(set(rows["product_id"].to_pylist()))
    assert model_settings(decoded, "ampere")["products"] == products


def test_unchanged_training_is_skipped_also_with_other_runtime_settings(
    decoded: Workspace, two_workers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", decoded.uri, *SMALL, *ONE_WORKER]) == 0
    assert "train: 0 products done, 10 were done before" in capsys.readouterr().out


@pytest.mark.nightly  # tests/pipeline/kill/ kills the whole training in `make test`
def test_training_resumes_from_a_checkpoint_after_a_worker_is_killed(
    decoded: Workspace,
    two_workers: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The worker that replaces it also fetches the weights of the model to start from."""
    log, steps = tmp_path / "reads", 6

    def with_dying_frames(*given: object) -> tuple[TrainingSet, FrameSource]:
        training_set, frames = training_data(*given)  # type: ignore[arg-type]
        # The driver reads once, to check the frames; then each step does.
        return training_set, DyingFrames(
            frames, log, at_read=1 + 5, runs=f"{decoded.uri}/runs", model="resumed"
        )

    monkeypatch.setattr(stage, "training_data", with_dying_frames)
    flags = ["--train.name", "resumed", "--train.start-from", "ampere", "--train.epochs", "6"]
    flags += ["--train.text", "raw", "--train.batch-size", "8"]
    flags += ["--train.log-every", "1", "--train.checkpoint-every", "2"]
    assert main(["train", "--workspace", decoded.uri, *ONE_WORKER, *flags]) == 0
    assert re.search(r"started from ampere with (\d+) of \1 weights\n", capsys.readouterr().out)
    lines = (Path(decoded.uri) / "logs" / "resumed" / "metrics.jsonl").read_text("utf-8")
    assert [json.loads(line)["step"] for line in lines.splitlines()] == list(range(1, steps + 1))
    assert lines == (decoded.fetch("models/resumed") / "metrics.jsonl").read_text("utf-8")
    assert 1 + steps < len(log.read_text().splitlines()) < 1 + 5 + steps  # not from the first step
    assert not [run for run in decoded.names("runs") if run.startswith("resumed")]


@pytest.mark.nightly
def test_diverged_training_fails_without_a_retry(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch of its only step comes from a loader process, which reads the Lance table."""
    flags = ["--train.name", "diverged", "--train.margin", "inf", "--train.log-every", "1"]
    flags += ["--train.loader-workers", "1"]
    assert main(["train", "--workspace", decoded.uri, *SMALL, *ONE_WORKER, *flags]) == 1
    error = capsys.readouterr().err
    assert "training of diverged failed: FloatingPointError: loss or gradient is not" in error
    assert "at step 1:" in error
    assert "diverged" not in decoded.names("models")


def test_training_with_another_seed_replaces_the_model(
    decoded: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", train_in_process)
    flags = [*SMALL, "--train.epochs", "0", "--train.name", "reseeded"]
    for seed in ("0", "1"):
        assert main(["train", "--workspace", decoded.uri, *flags, "--train.seed", seed]) == 0
        assert "train: 10 products done" in capsys.readouterr().out
        assert model_settings(decoded, "reseeded")["train"]["seed"] == int(seed)


def test_cn_clip_is_trained_embedded_indexed_and_evaluated(
    decoded: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", train_in_process)
    save_tiny_clip(tmp_path)
    flags = ["--workspace", decoded.uri, "--preset", "demo+cn-clip-m0"]
    assert main(["train", *flags, "--model.weights", str(tmp_path)]) == 0
    for command in ("embed", "index", "evaluate"):
        assert main([command, *flags]) == 0, command
    assert "cn-clip-m0" in capsys.readouterr().out
    (name,) = embedding_tables(decoded)
    assert name.startswith("cn-clip-m0@")
    rows = embeddings_of(decoded, name).read(["vector"])
    assert {len(vector) for vector in rows["vector"].to_pylist()} == {12}


def test_model_trained_on_frames_is_the_start_of_another(
    decoded: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", train_in_process)
    warm = ["--train.name", "warm", "--train.supervision", "frames", "--train.text", "none"]
    warm += FROM_SCRATCH
    assert main(["train", "--workspace", decoded.uri, *warm, "--train.epochs", "1"]) == 0
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()
    # Those of the test split too, since no label is read.
    assert model_settings(decoded, "warm")["products"] == sorted(ids)
    cold = ["--train.name", "cold", "--train.epochs", "0", "--train.text", "raw", *FROM_SCRATCH]
    assert main(["train", "--workspace", decoded.uri, *cold, "--train.start-from", "warm"]) == 0
    note = re.search(
        r"started from warm with (\d+) of (\d+) weights; newly initialized, .*: (.*)",
        capsys.readouterr().out,
    )
    ours, theirs = (load_weights(decoded.fetch(f"models/{name}")) for name in ("cold", "warm"))
    copied = [name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])]
    assert {name for name in ours if name.startswith("video.")} <= set(copied)
    assert note and (int(note[1]), int(note[2])) == (len(copied), len(ours))
    assert "fusion, no_text, text" in note[3]
    assert main(["train", "--workspace", decoded.uri, "--train.start-from", "none"]) == 2


def test_training_frames_are_those_of_the_training_split(decoded: Workspace) -> None:
    settings = TrainSettings(supervision="training-frames", text="none")
    training_set, _ = training_data(decoded, LanceFrames(decoded), ModelSettings(), settings)
    rows = decoded.table(SAMPLES).read(["sample_id"], pc.field("split") == Split.TRAIN)
    assert sorted(training_set.products) == sorted(rows["sample_id"].to_pylist())


def test_missing_weights_stop_a_training_before_any_work(
    decoded: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "demo+mllm-0", "--model.weights", str(tmp_path)]
    assert main(["train", "--workspace", decoded.uri, *flags]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert "mllm-0" not in decoded.names("models")
    assert not [run for run in decoded.names("runs") if run.startswith("mllm-0")]
