"""Progress and trackers: where the metrics of a training are shown."""

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
from tests.helpers.trackers import StubLibrary
from tests.helpers.training import small_job, small_set


def metrics(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "epoch": step / 2, "contrastive": loss, "classifier": 2 * loss}


def watch(folder: Path | None, rows: list[dict[str, float]], **train: object) -> Progress:
    progress = Progress(small_job(small_set(4)[0], **train), folder)
    channel: queue.Queue[Any] = queue.Queue()
    for row in [*rows, None]:
        channel.put(row)
    started: Future[None] = Future()
    progress.watch(channel, started)
    started.result(timeout=0)
    return progress


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_metrics_are_written_to_a_file_and_tensorboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [metrics(1, 3.0), metrics(2, 2.0), metrics(4, 1.0)]
    progress = watch(tmp_path / "run", rows)
    assert lines(tmp_path / "run") == rows
    assert progress.last() == "contrastive 1.000, classifier 2.000"
    assert "2.0/2 epochs" in capsys.readouterr().err
    (events,) = (tmp_path / "run").glob("events.out.tfevents*")
    assert b"contrastive" in events.read_bytes()


def test_repeated_steps_replace_the_old_ones(tmp_path: Path) -> None:
    """A worker died after step 4, and the training resumed from step 2."""
    rows = [metrics(2, 3.0), metrics(4, 2.0), metrics(2, 3.0), metrics(4, 1.5), metrics(6, 1.0)]
    watch(tmp_path / "run", rows)
    assert lines(tmp_path / "run") == [metrics(2, 3.0), metrics(4, 1.5), metrics(6, 1.0)]


def test_new_run_replaces_the_files_of_the_last(tmp_path: Path) -> None:
    watch(tmp_path / "run", [metrics(1, 1.0), metrics(2, 1.0)])
    watch(tmp_path / "run", [metrics(1, 7.0)])
    assert lines(tmp_path / "run") == [metrics(1, 7.0)]
    assert len(list((tmp_path / "run").glob("events.out.tfevents*"))) == 1


def test_without_a_local_folder_metrics_are_collected_for_the_model() -> None:
    assert watch(None, [metrics(1, 1.0)]).lines() == json.dumps(metrics(1, 1.0)) + "\n"


@pytest.mark.parametrize(
    ("name", "begin"), [("wandb", [("ampere", "ampere", 2)]), ("mlflow", ["ampere", "ampere"])]
)
def test_wandb_and_mlflow_get_the_metrics(
    name: str, begin: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = StubLibrary()
    monkeypatch.setitem(sys.modules, name, library)
    watch(None, [metrics(1, 3.0), metrics(2, 2.0), metrics(2, 2.0)], trackers=(name,))
    assert library.received == [*begin, (1, 3.0), (2, 2.0), "end"]


def test_trackers_log_a_repeated_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker died after step 6, and the training resumed from step 2."""
    library = StubLibrary()
    monkeypatch.setitem(sys.modules, "wandb", library)
    before, after = (
        [metrics(step, 3.0) for step in (2, 4, 6)],
        [metrics(step, 1.0) for step in (2, 4, 6, 8)],
    )
    watch(None, before + after, trackers=("wandb",))
    assert library.received[1:-1] == [(2, 3.0), (4, 3.0), (6, 3.0), (8, 1.0)]


def test_failing_tracker_is_dropped_and_others_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = StubLibrary(fails="log", at_call=2), StubLibrary()
    monkeypatch.setitem(sys.modules, "wandb", failing)
    monkeypatch.setitem(sys.modules, "mlflow", other)
    rows = [metrics(step, 3.0) for step in (1, 2, 3, 4)]
    watch(tmp_path / "run", rows, trackers=("wandb", "mlflow", "tensorboard"))
    assert failing.received[1:] == [(1, 3.0), "end"] and failing.calls == 2
    assert other.received[2:] == [(1, 3.0), (2, 3.0), (3, 3.0), (4, 3.0), "end"]
    assert lines(tmp_path / "run") == rows
    output = capsys.readouterr().err
    assert "train: tracker wandb failed at step 2 and gets no more metrics; " in output
    assert "metrics.jsonl has all of them: ConnectionResetError" in output
    assert output.count("wandb") == 1 and "2.0/2 epochs" in output


def test_tracker_that_fails_to_close_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", StubLibrary(fails="end"))
    monkeypatch.setitem(sys.modules, "mlflow", other := StubLibrary())
    watch(None, [metrics(1, 3.0)], trackers=("mlflow", "wandb"))
    assert (
        "tracker wandb failed to close; its last metrics may be missing: Conn"
        in capsys.readouterr().err
    )
    assert other.received[-1] == "end"


def test_tracker_that_cannot_start_raises_and_closes_earlier_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", StubLibrary(fails="init"))
    monkeypatch.setitem(sys.modules, "mlflow", other := StubLibrary())
    with pytest.raises(
        RuntimeError,
        match=r"tracker cannot start: wandb .*: ConnectionResetError: the server is",
    ):
        watch(None, [metrics(1, 3.0)], trackers=("mlflow", "wandb"))
    assert other.received == ["ampere", "ampere", "end"]


def test_tracker_that_is_not_installed_is_reported_before_any_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    check_trackers(["tensorboard"])
    assert (
        main(["train", "--workspace", workspace.uri, "--train.trackers", "tensorboard", "wandb"])
        == 2
    )
    assert (
        "tracker not installed: wandb (train.trackers). Run `pip install wandb`"
        in capsys.readouterr().err
    )
