"""The train stage under Ray Train: two gloo workers, a model that loads, nothing trained twice."""

import json
import re
from pathlib import Path

import pytest
import torch

from ampere.cli import main
from ampere.models.checkpoint import load_weights
from ampere.models.embedder import Embedder
from ampere.pipeline.frames_table import LanceFrames
from ampere.records import EMBEDDINGS, SAMPLES, Domain, Split
from ampere.workspace import Workspace

from ..models.test_cn_clip import save_tiny_clip

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]
SMALL = ["--train.epochs", "2", "--train.text", "raw", "--train.batch-size", "8"]


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Workspace:
    uri = str(tmp_path_factory.mktemp("train") / "workspace")
    assert main(["prepare", "--manifest", str(catalogue / "manifest.csv"), "--workspace", uri]) == 0
    assert main(["decode", "--workspace", uri]) == 0
    return Workspace.open(uri)


def test_two_workers_train_a_model_that_embeds(decoded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--workspace", decoded.uri, *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("train: 10 products done in")
    folder = decoded.fetch("models/ampere")
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    assert settings["train"]["workers"] == 2
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert metrics[-1]["epoch"] == 2 and metrics[-1]["step"] == settings["scores"]["step"]
    # The weights, and the class centres of each rank.
    assert sorted(path.suffix for path in folder.iterdir()).count(".safetensors") == 3
    logs = Path(decoded.uri) / "logs" / "ampere"
    assert (logs / "metrics.jsonl").read_text("utf-8") == (folder / "metrics.jsonl").read_text("utf-8")
    assert any(path.name.startswith("events.out.tfevents") for path in logs.iterdir())
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()[:6]
    vectors = Embedder(folder).embed(
        LanceFrames(decoded).take(ids), ["云岚薄荷洗发水", None, "", "x", None, None], [Domain.PAGE] * 6
    )
    assert vectors.shape == (6, 128)
    assert abs((vectors**2).sum(axis=1) - 1).max() < 1e-5
    assert decoded.names("runs") == []


def test_only_training_products_are_trained_on(decoded: Workspace) -> None:
    settings = json.loads((decoded.fetch("models/ampere") / "settings.json").read_text("utf-8"))
    rows = decoded.table(SAMPLES).read(["product_id"], f"split = '{Split.TRAIN}'")
    assert settings["products"] == sorted(set(rows["product_id"].to_pylist()))


def test_the_same_training_is_not_repeated_and_another_one_is(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", decoded.uri, *SMALL]) == 0
    assert "train: 0 products done, 10 were done before" in capsys.readouterr().out
    assert main(["train", "--workspace", decoded.uri, *SMALL, "--train.seed", "1", "--train.loader-workers", "1"]) == 0
    assert "train: 10 products done" in capsys.readouterr().out


def test_a_network_with_its_own_weights_goes_all_the_way(
    decoded: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_clip(tmp_path)
    flags = ["--workspace", decoded.uri, "--preset", "demo+cn-clip-m0"]
    assert main(["train", *flags, "--model.weights", str(tmp_path)]) == 0
    for command in ("embed", "index", "evaluate"):
        assert main([command, *flags]) == 0, command
    assert "cn-clip-m0" in capsys.readouterr().out
    vectors = decoded.table(EMBEDDINGS).read(["vector"], "model LIKE 'cn-clip-m0@%'")["vector"].to_pylist()
    assert {len(vector) for vector in vectors} == {12}


def test_frames_alone_train_a_start_for_another_training(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = ["--train.name", "warm", "--train.supervision", "frames", "--train.text", "none", "--train.epochs", "1"]
    assert main(["train", "--workspace", decoded.uri, *warm]) == 0
    settings = json.loads((decoded.fetch("models/warm") / "settings.json").read_text("utf-8"))
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()
    assert settings["products"] == sorted(ids)  # those of the test split too: no label is read
    cold = ["--train.name", "cold", "--train.epochs", "0", "--train.text", "raw"]
    assert main(["train", "--workspace", decoded.uri, *cold, "--train.start-from", "warm"]) == 0
    told = re.search(r"started from warm with (\d+) of (\d+) weights; begun anew, .*: (.*)", capsys.readouterr().out)
    ours, theirs = (load_weights(decoded.fetch(f"models/{name}")) for name in ("cold", "warm"))
    taken = [name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])]
    assert {name for name in ours if name.startswith("video.")} <= set(taken)
    assert told and (int(told[1]), int(told[2])) == (len(taken), len(ours)) and "fusion, no_text, text" in told[3]
    assert main(["train", "--workspace", decoded.uri, "--train.start-from", "none"]) == 2


def test_weights_that_cannot_be_had_stop_a_training_before_any_work(
    decoded: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "demo+mllm-0", "--model.weights", str(tmp_path)]
    assert main(["train", "--workspace", decoded.uri, *flags]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert "mllm-0" not in decoded.names("models") and decoded.names("runs") == []


def test_too_few_products_is_said_before_any_work(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--workspace", workspace.uri]) == 2
    assert "no frames yet; run `ampere decode` first" in capsys.readouterr().err
