"""The parts of the stage runner that need no cluster."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from ampere.cluster import connect
from ampere.config.decode import DecodeSettings
from ampere.pipeline.runner import commit
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.progress import Progress
from ampere.pipeline.runner.ray_data import cause_of
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import prefetched, run_stage
from ampere.pipeline.runner.stage import Stage, Work, result_table
from ampere.records import FAILURES, FRAMES
from ampere.store.workspace import Workspace


def numbers(batch: pa.Table) -> list[int]:
    return batch["n"].to_pylist()


def test_batches_that_wait_are_joined_in_order() -> None:
    all_read = threading.Event()

    def batches() -> Iterator[pa.Table]:
        for n in range(5):
            yield pa.table({"n": [n]})
        all_read.set()

    results = prefetched(batches(), interval_s=0)
    read = numbers(next(results))
    all_read.wait(timeout=30)
    read += [n for batch in results for n in numbers(batch)]
    assert read == [0, 1, 2, 3, 4]


def test_prefetching_is_bounded() -> None:
    """Batches that wait for a commit must not fill the memory."""
    all_read = threading.Event()

    def batches() -> Iterator[pa.Table]:
        for n in range(100):
            yield pa.table({"n": [n]})
        all_read.set()

    results = prefetched(batches(), limit=2)
    next(results)
    assert not all_read.wait(timeout=0.5)  # it waits for room
    assert sum(batch.num_rows for batch in results) >= 90 and all_read.is_set()


def test_error_is_raised_after_the_batches_before_it() -> None:
    def batches() -> Iterator[pa.Table]:
        yield pa.table({"n": [1]})
        raise RuntimeError("out of memory")

    results = prefetched(batches())
    assert numbers(next(results)) == [1]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(results)


def test_prefetching_nothing() -> None:
    assert list(prefetched(iter([]))) == []


def test_summary_line_has_rates_and_failures() -> None:
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
        "decode: 10 files done in 2.0 s (5.0 files/s, 0.5 GB/s, the first after 1 s), 2 were "
        "done before; 3 failed (2 TimedOut, 1 MissingMedia; see `ampere status --failures`). "
        "Result: there"
    )


def test_cause_is_the_last_error_with_its_whole_message() -> None:
    report = """ray.exceptions.ActorDiedError: The actor died because of an error in its creation
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


def test_cause_in_the_function_of_a_task_is_named_without_what_ray_adds() -> None:
    report = """ray::MapBatches(f)()
  File "f.py", line 7, in f
OSError: [Errno 28] No space left on device

The above exception was the direct cause of the following exception:

ray::MapBatches(f)()
ray.exceptions.UserCodeException: UDF failed to process a data block.
Failed to apply UDF transform after 1/1 attempts (total backoff 0.0s).
"""
    assert cause_of(report) == "OSError: [Errno 28] No space left on device"


class FramesStage(Stage):
    """A stage that wants nothing."""

    name, output, batch_size = "s", FRAMES, 1

    def inputs(self) -> pa.Table:
        return pa.table(
            {"sample_id": pa.array([], pa.string()), "fingerprint": pa.array([], pa.string())}
        )

    def transform(self, work: Work) -> None:
        raise AssertionError("there is no row to transform")


@pytest.fixture
def stage() -> Stage:
    return FramesStage()


@pytest.mark.parametrize("bad", [True, False])
def test_row_killed_between_its_two_commits_is_in_neither_table(
    workspace: Workspace, stage: Stage, monkeypatch: pytest.MonkeyPatch, *, bad: bool
) -> None:
    """So it is pending again. In both, an old result would stay beside the failure for ever."""

    def batch(*, bad: bool, fingerprint: str) -> pa.Table:
        row = {"sample_id": "a", "fingerprint": fingerprint, "frames": [b""], "timestamps_s": [0.0]}
        return result_table(
            FRAMES, [row | ({"error_type": "E", "error_message": "m"} if bad else {})]
        )

    report = Report("s", "there")
    Committer(workspace, stage, report, {}, -1).commit(batch(bad=not bad, fingerprint="old"))

    def killed(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(commit, "record_failures", killed)
    monkeypatch.setattr("ampere.store.table.Table.append", killed)
    with pytest.raises(InterruptedError):
        Committer(workspace, stage, report, {} if not bad else {"a": "old"}, -1).commit(
            batch(bad=bad, fingerprint="new")
        )
    assert workspace.table(FRAMES).count() == workspace.table(FAILURES).count() == 0


def test_refused_job_leaves_the_settings_of_the_running_one(
    workspace: Workspace, stage: Stage
) -> None:
    with (
        workspace.lock(stage.name),
        pytest.raises(RuntimeError, match=f"another job is writing {stage.name}"),
    ):
        run_stage(stage, workspace, settings=DecodeSettings(num_frames=4))
    assert workspace.read_report("s-settings.json") is None


def test_missing_gpus_stop_a_local_job_and_are_awaited_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connect(1, "train.gpus")
    with pytest.raises(
        RuntimeError,
        match=r"train\.gpus requests 4 in total, this machine has 1\. .*--train\.gpus 0",
    ):
        connect(4, "train.gpus")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    connect(4, "train.gpus")
    assert (
        "waiting for 4 GPUs in total (train.gpus); the cluster has 1 now" in capsys.readouterr().err
    )


def test_invalid_input_leaves_the_settings_of_the_last_run(workspace: Workspace) -> None:
    class Invalid(FramesStage):
        def inputs(self) -> pa.Table:
            raise ValueError("no frames")

    with pytest.raises(ValueError, match="no frames"):
        run_stage(Invalid(), workspace, settings=DecodeSettings(num_frames=4))
    assert workspace.read_report("s-settings.json") is None


def test_progress_shows_what_it_waits_for_until_the_first_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report("summarize", "there", done=3, totals={"GB": 1.0})
    report.failed["TimedOut"] += 1
    with Progress("summarize", 4, "row", "loading the model") as progress:
        progress.update(4, report)
    *before, after = capsys.readouterr().err.split("\r")
    assert any("0/4" in line and "loading the model" in line for line in before)
    assert "4/4" in after and "failed=1" in after and "GB/s=" in after
    assert "loading" not in after and report.first_seconds > 0


def test_progress_ends_its_thread_if_the_work_fails() -> None:
    with pytest.raises(RuntimeError, match="failed"), Progress("s", 1, "row", "loading"):
        raise RuntimeError("failed")
    assert "progress" not in {thread.name for thread in threading.enumerate()}
