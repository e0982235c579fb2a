"""Rows that kill their worker, and rows with equal results, under the runner and a real Ray."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.runner.stage import RetryPolicy, Stage, Work, error_row, result_table
from ampere.pipeline.summarize.dedupe import Duplicates
from ampere.records import FAILURES, SUMMARIES
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

pytestmark = pytest.mark.usefixtures("local_ray")


class Worker:
    """Dies of `poison`; of `passing` it fails the first time; writes down what it was given."""

    def __init__(self, log: Path) -> None:
        self.log = log

    async def __call__(self, batch: pa.Table):
        rows = batch.to_pylist()
        seen = self.log.read_text() if self.log.exists() else ""
        with self.log.open("a") as file:
            file.writelines(f"{row['fingerprint']}\n" for row in rows)
        if any(row["fingerprint"] == "poison" for row in rows):
            os._exit(1)
        results = []
        for row in rows:
            if row["fingerprint"] == "passing" and "passing" not in seen:
                results.append(
                    error_row(row["sample_id"], row["fingerprint"], TimeoutError("not now"))
                )
            else:
                results.append(
                    row | {"method": "llm", "model": "", "status": "ok", "prompt_tokens": 10}
                )
        yield result_table(SUMMARIES, results)


class WorkerStage(Stage):
    """A stage that deduplicates, whose workers write to `log`; it notes its batch sizes."""

    name = "summarize"
    output = SUMMARIES
    batch_size = 4
    retry = RetryPolicy(batch_sizes=(2, 1), errors=frozenset({"TimeoutError"}))

    def __init__(self, rows: list[tuple[str, str]], log: Path) -> None:
        self.rows, self.log = rows, log
        self.batch_sizes: list[int] = []

    def inputs(self) -> pa.Table:
        ids, fingerprints = zip(*self.rows, strict=True)
        return pa.table({"sample_id": ids, "fingerprint": fingerprints})

    def without_work(self, rows: pa.Table) -> tuple[Iterator[pa.Table], pa.Table]:
        self.duplicates = Duplicates(rows)
        return iter(()), self.duplicates.first

    def transform(self, work: Work) -> "ray.data.Dataset":
        from ray.data import ActorPoolStrategy

        self.batch_sizes.append(work.batch_size)
        tasks = 1 if work.isolated else 4
        return map_batches(
            work.blocks,
            Worker,
            attempts=1,
            fn_constructor_kwargs={"log": self.log},
            batch_format="pyarrow",
            batch_size=work.batch_size,  # as an engine has it
            compute=ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=tasks),
            max_concurrency=tasks,
            num_cpus=0.5,
        )

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        for batch in batches:
            report.add("tokens", pc.sum(batch["prompt_tokens"]).as_py())
            yield batch

    def expand(self, results: pa.Table) -> pa.Table:
        return self.duplicates.expand(results)


def test_row_that_kills_its_worker_fails_alone(workspace: Workspace, tmp_path: Path) -> None:
    rows = [(f"s{i}", f"f{i}") for i in range(24)] + [
        ("bad", "poison"),
        ("later", "passing"),
        ("twin", "f3"),
    ]
    log = tmp_path / "log"
    stage = WorkerStage(rows, log)
    report = run_stage(stage, workspace)
    done = workspace.table(SUMMARIES).read(["sample_id"])["sample_id"].to_pylist()
    assert sorted(done) == sorted(
        sample_id for sample_id, fingerprint in rows if fingerprint != "poison"
    )
    (failure,) = workspace.table(FAILURES).read().to_pylist()
    assert (failure["sample_id"], failure["error_type"]) == ("bad", "WorkerDied")
    assert "died in each of 3 attempts" in failure["message"]
    assert (report.done, dict(report.failed), report.unprocessed) == (26, {"WorkerDied": 1}, 0)
    assert stage.batch_sizes == [4, 2, 1]
    worked_on = log.read_text().splitlines()
    assert worked_on.count("poison") == 3 and worked_on.count("passing") >= 2
    assert (
        worked_on.count("f3") <= 3
    )  # shared by two samples, worked on for one; again only if it was lost
    assert report.totals == {"tokens": 25 * 10}  # what is shared is not counted twice
    again = run_stage(WorkerStage(rows, log), workspace)
    assert (again.done, again.skipped) == (0, 26) and log.read_text().splitlines() == worked_on


def die(batch: pa.Table) -> pa.Table:
    os._exit(1)


class DyingStage(WorkerStage):
    """A stage without retries."""

    retry = RetryPolicy()

    def transform(self, work: Work) -> "ray.data.Dataset":
        return map_batches(work.blocks, die, attempts=2, batch_format="pyarrow", batch_size=None)


def test_batch_that_kills_every_worker_fails_the_job(workspace: Workspace, tmp_path: Path) -> None:
    """Ray itself would retry the batch for ever."""
    with pytest.raises(RuntimeError, match="Ray Data pipeline failed .WorkerCrashedError"):
        run_stage(DyingStage([("s", "f")], tmp_path / "log"), workspace)


def stop(batch: pa.Table) -> pa.Table:
    raise KeyError("no such setting")


class StoppedStage(WorkerStage):
    """A stage whose work raises an error that is no row's fault."""

    retry = RetryPolicy()

    def transform(self, work: Work) -> "ray.data.Dataset":
        return map_batches(work.blocks, stop, batch_format="pyarrow", batch_size=None)


def test_error_of_the_work_is_named(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'no such setting'"):
        run_stage(StoppedStage([("s", "f")], tmp_path / "log"), workspace)


def test_duplicates_by_hand() -> None:
    rows = pa.table({"sample_id": ["a", "b", "c", "d"], "fingerprint": ["x", "y", "x", "x"]})
    duplicates = Duplicates(rows)
    assert duplicates.first["sample_id"].to_pylist() == ["a", "b"]
    results = pa.table({"fingerprint": ["y", "x"], "sample_id": ["b", "a"], "text": ["Y", "X"]})
    assert duplicates.expand(results).to_pylist() == [
        {"fingerprint": "y", "sample_id": "b", "text": "Y"},
        *({"fingerprint": "x", "sample_id": name, "text": "X"} for name in ("a", "c", "d")),
    ]
    assert duplicates.expand(results.slice(0, 0)).num_rows == 0
