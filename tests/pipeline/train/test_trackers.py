"""Where the metrics of a training go."""

import json
import queue
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from ampere.cli import main
from ampere.pipeline.train.trackers import Progress, check_trackers
from ampere.store.workspace import Workspace
from tests.helpers.trackers import Library
from tests.helpers.training import small_job, small_set


def metrics(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "epoch": step / 2, "contrastive": loss, "classifier": 2 * loss}


def watched(folder: Path | None, rows: list[dict[str, float]], **train: object) -> Progress:
    progress = Progress(small_job(small_set(4)[0], **train), folder)
    coming: queue.Queue[Any] = queue.Queue()
    for row in [*rows, None]:
        coming.put(row)
    started: Future[None] = Future()
    progress.watch(coming, started)
    started.result(timeout=0)
    return progress


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_metrics_go_into_a_file_and_tensorboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [metrics(1, 3.0), metrics(2, 2.0), metrics(4, 1.0)]
    progress = watched(tmp_path / "run", rows)
    assert lines(tmp_path / "run") == rows
    assert progress.last() == "contrastive 1.000, classifier 2.000"
    assert "2.0/2 epochs" in capsys.readouterr().err
    (events,) = (tmp_path / "run").glob("events.out.tfevents*")
    assert b"contrastive" in events.read_bytes()


def test_steps_that_are_repeated_replace_the_old_ones(tmp_path: Path) -> None:
    """A worker died after step 4 and went on from its checkpoint of step 2."""
    rows = [metrics(2, 3.0), metrics(4, 2.0), metrics(2, 3.0), metrics(4, 1.5), metrics(6, 1.0)]
    watched(tmp_path / "run", rows)
    assert lines(tmp_path / "run") == [metrics(2, 3.0), metrics(4, 1.5), metrics(6, 1.0)]


def test_a_new_run_replaces_the_files_of_the_last(tmp_path: Path) -> None:
    watched(tmp_path / "run", [metrics(1, 1.0), metrics(2, 1.0)])
    watched(tmp_path / "run", [metrics(1, 7.0)])
    assert lines(tmp_path / "run") == [metrics(1, 7.0)]
    assert len(list((tmp_path / "run").glob("events.out.tfevents*"))) == 1


def test_in_a_cloud_the_metrics_are_kept_for_the_model_folder() -> None:
    assert watched(None, [metrics(1, 1.0)]).lines() == json.dumps(metrics(1, 1.0)) + "\n"


@pytest.mark.parametrize(
    ("name", "begin"), [("wandb", [("ampere", "ampere", 2)]), ("mlflow", ["ampere", "ampere"])]
)
def test_other_trackers_by_their_own_libraries(
    name: str, begin: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    monkeypatch.setitem(sys.modules, name, library)
    watched(None, [metrics(1, 3.0), metrics(2, 2.0), metrics(2, 2.0)], trackers=(name,))
    assert library.told == [*begin, (1, 3.0), (2, 2.0), "end"]


def test_trackers_take_a_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker died after step 6 and went on from its checkpoint of step 2."""
    library = Library()
    monkeypatch.setitem(sys.modules, "wandb", library)
    before, after = (
        [metrics(step, 3.0) for step in (2, 4, 6)],
        [metrics(step, 1.0) for step in (2, 4, 6, 8)],
    )
    watched(None, before + after, trackers=("wandb",))
    assert library.told[1:-1] == [(2, 3.0), (4, 3.0), (6, 3.0), (8, 1.0)]


def test_a_tracker_that_fails_is_dropped_and_all_else_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Library(fails="log", at_call=2), Library()
    monkeypatch.setitem(sys.modules, "wandb", failing)
    monkeypatch.setitem(sys.modules, "mlflow", other)
    rows = [metrics(step, 3.0) for step in (1, 2, 3, 4)]
    watched(tmp_path / "run", rows, trackers=("wandb", "mlflow", "tensorboard"))
    assert failing.told[1:] == [(1, 3.0), "end"] and failing.calls == 2
    assert other.told[2:] == [(1, 3.0), (2, 3.0), (3, 3.0), (4, 3.0), "end"]
    assert lines(tmp_path / "run") == rows
    told = capsys.readouterr().err
    assert (
        "train: wandb failed at step 2 and gets no more metrics; metrics.jsonl has them all: Connection"
        in told
    )
    assert told.count("wandb") == 1 and "2.0/2 epochs" in told


def test_a_tracker_that_fails_at_its_end_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Library(fails="end"))
    monkeypatch.setitem(sys.modules, "mlflow", other := Library())
    watched(None, [metrics(1, 3.0)], trackers=("mlflow", "wandb"))
    assert (
        "wandb failed at its end, so it may lack the last metrics: Conn" in capsys.readouterr().err
    )
    assert other.told[-1] == "end"


def test_a_tracker_that_cannot_start_is_told_and_those_before_it_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Library(fails="init"))
    monkeypatch.setitem(sys.modules, "mlflow", other := Library())
    with pytest.raises(
        RuntimeError,
        match=r"names wandb, which cannot be started: ConnectionResetError: the server is",
    ):
        watched(None, [metrics(1, 3.0)], trackers=("mlflow", "wandb"))
    assert other.told == ["ampere", "ampere", "end"]


def test_a_tracker_that_is_not_installed_is_told_before_any_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    check_trackers(["tensorboard"])
    assert (
        main(["train", "--workspace", workspace.uri, "--train.trackers", "tensorboard", "wandb"])
        == 2
    )
    assert (
        "train.trackers names wandb, which is not installed; pip install wandb"
        in capsys.readouterr().err
    )
