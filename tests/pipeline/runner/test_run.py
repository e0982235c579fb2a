"""The stage runner's parts that need no cluster."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from ampere.cluster import require_gpus
from ampere.config.decode import DecodeSettings
from ampere.pipeline.runner import run as runner
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import cause_of, gathered, run_stage
from ampere.pipeline.runner.stage import Stage, result_table
from ampere.records import FAILURES, FRAMES
from ampere.store.workspace import Workspace


def numbers(batch: pa.Table) -> list[int]:
    return batch["n"].to_pylist()


def test_batches_that_came_meanwhile_are_joined_in_order() -> None:
    all_read = threading.Event()

    def batches() -> Iterator[pa.Table]:
        for n in range(5):
            yield pa.table({"n": [n]})
        all_read.set()

    results = gathered(batches())
    found = numbers(next(results))
    all_read.wait(timeout=30)
    found += [n for batch in results for n in numbers(batch)]
    assert found == [0, 1, 2, 3, 4]


def test_reading_ahead_is_bounded() -> None:
    """What waits to be committed may not fill the memory."""
    all_read = threading.Event()

    def batches() -> Iterator[pa.Table]:
        for n in range(100):
            yield pa.table({"n": [n]})
        all_read.set()

    results = gathered(batches(), most=2)
    next(results)
    assert not all_read.wait(timeout=0.5)  # it waits for room
    assert sum(batch.num_rows for batch in results) >= 90 and all_read.is_set()


def test_what_reading_raises_comes_after_what_was_read() -> None:
    def batches() -> Iterator[pa.Table]:
        yield pa.table({"n": [1]})
        raise RuntimeError("Ray gave up")

    results = gathered(batches())
    assert numbers(next(results)) == [1]
    with pytest.raises(RuntimeError, match="Ray gave up"):
        next(results)


def test_nothing_read_is_nothing() -> None:
    assert list(gathered(iter([]))) == []


def test_the_last_line_tells_rates_and_failures() -> None:
    report = Report(
        "decode",
        "there",
        done=10,
        skipped=2,
        seconds=2.0,
        totals={"GB": 1.0},
        unit="files",
        first_seconds=1.2,
    )
    report.failed.update(["TimedOut", "TimedOut", "MissingMedia"])
    assert str(report) == (
        "decode: 10 files done in 2.0 s (5.0 files/s, 0.5 GB/s, the first after 1 s), 2 were done before; 3 failed "
        "(2 TimedOut, 1 MissingMedia; see `ampere status --failures`). Result: there"
    )


def test_the_cause_is_the_last_error_with_all_that_it_says() -> None:
    report = """ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation task
  File "stage.py", line 7, in __init__
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (4096) is greater than the model's 1024
    For further information visit https://errors.pydantic.dev/2/v/value_error
"""
    assert cause_of(report) == (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
        "Value error, max_model_len (4096) is greater than the model's 1024"
    )
    assert cause_of("first\nThe node died\n") == "The node died"


@pytest.fixture
def stage() -> Stage:
    return Stage(name="s", output=FRAMES, wanted=pa.table({}), build=lambda _: None, batch_size=1)


@pytest.mark.parametrize("bad", [True, False])
def test_killed_between_its_two_commits_a_row_is_in_no_place_rather_than_in_both(
    workspace: Workspace, stage: Stage, monkeypatch: pytest.MonkeyPatch, *, bad: bool
) -> None:
    """It is due again then. In both, its old result would stay for ever beside its failure, or the other way round."""

    def batch(*, bad: bool, fingerprint: str) -> pa.Table:
        row = {"sample_id": "a", "fingerprint": fingerprint, "frames": [b""], "timestamps_s": [0.0]}
        return result_table(
            FRAMES, [row | ({"error_type": "E", "error_message": "m"} if bad else {})]
        )

    report = Report("s", "there")
    Committer(workspace, stage, report, set()).commit(batch(bad=not bad, fingerprint="old"))

    def killed(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(runner, "record_failures", killed)
    monkeypatch.setattr("ampere.store.table.Table.append", killed)
    with pytest.raises(InterruptedError):
        Committer(workspace, stage, report, set() if not bad else {"a"}).commit(
            batch(bad=bad, fingerprint="new")
        )
    assert workspace.table(FRAMES).count() == workspace.table(FAILURES).count() == 0


def test_a_job_that_is_refused_leaves_the_settings_of_the_one_that_runs(
    workspace: Workspace, stage: Stage
) -> None:
    with (
        workspace.lock(FRAMES.name),
        pytest.raises(RuntimeError, match="another job is writing frames"),
    ):
        run_stage(stage, workspace, settings=DecodeSettings(num_frames=4))
    assert workspace.read_report("s-settings.json") is None


def test_gpus_that_are_not_there_stop_a_job_on_this_machine_and_are_waited_for_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    require_gpus(1, "train.gpus")
    with pytest.raises(
        RuntimeError, match=r"train\.gpus asks for 4 GPUs in all, and Ray sees 1 .*--train\.gpus 0"
    ):
        require_gpus(4, "train.gpus")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    require_gpus(4, "train.gpus")
    assert (
        "waiting for 4 GPUs in all (train.gpus); the cluster has 1 now" in capsys.readouterr().err
    )
