"""The train stage under Ray Train: two gloo workers, a model that loads, nothing trained twice."""

import json
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.models.embedder import Embedder
from ampere.pipeline.frames_table import LanceFrames
from ampere.records import SAMPLES, Domain, Split
from ampere.workspace import Workspace

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


def test_too_few_products_is_said_before_any_work(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--workspace", workspace.uri]) == 2
    assert "no frames yet; run `ampere decode` first" in capsys.readouterr().err
