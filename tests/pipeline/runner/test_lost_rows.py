"""Rows that kill their worker, and rows whose work is the same, under the stage runner and a real Ray."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.pipeline.summarize.dedupe import Sharing
from ampere.records import FAILURES, SUMMARIES
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data


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
                results.append(row | {"method": "llm", "status": "ok", "prompt_tokens": 10})
        yield result_table(SUMMARIES, results)


def stage(rows: list[tuple[str, str]], log: Path, sizes: list[int]) -> Stage:
    """A stage whose workers write to `log`, and that notes the batch size of each turn in `sizes`."""

    def build(work: Work) -> "ray.data.Dataset":
        from ray.data import ActorPoolStrategy

        sizes.append(work.batch_size)
        tasks = 1 if work.careful else 4
        return map_batches(
            work.blocks,
            Worker,
            tries=1,
            fn_constructor_kwargs={"log": log},
            batch_format="pyarrow",
            batch_size=work.batch_size,  # as an engine has it
            compute=ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=tasks),
            max_concurrency=tasks,
            num_cpus=0.5,
        )

    wanted = pa.table({"sample_id": [i for i, _ in rows], "fingerprint": [f for _, f in rows]})
    return Stage(
        name="summarize",
        output=SUMMARIES,
        wanted=wanted,
        build=build,
        batch_size=4,
        share=True,
        careful_sizes=(2, 1),
        passing_errors=frozenset({"TimeoutError"}),
        totals={"tokens": ("prompt_tokens", 1)},
    )


def test_a_row_that_kills_its_worker_is_listed_and_takes_no_other_along(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = [(f"s{i}", f"f{i}") for i in range(24)] + [
        ("bad", "poison"),
        ("later", "passing"),
        ("twin", "f3"),
    ]
    log, sizes = tmp_path / "log", []
    report = run_stage(stage(rows, log, sizes), workspace)
    done = workspace.table(SUMMARIES).read(["sample_id"])["sample_id"].to_pylist()
    assert sorted(done) == sorted(sample_id for sample_id, print_ in rows if print_ != "poison")
    (failure,) = workspace.table(FAILURES).read().to_pylist()
    assert (failure["sample_id"], failure["error_type"]) == ("bad", "WorkerDied")
    assert "died, 3 times" in failure["message"]
    assert (report.done, dict(report.failed), report.unanswered) == (26, {"WorkerDied": 1}, 0)
    assert sizes == [4, 2, 1]
    worked_on = log.read_text().splitlines()
    assert worked_on.count("poison") == 3 and worked_on.count("passing") >= 2
    assert (
        worked_on.count("f3") <= 3
    )  # shared by two samples, worked on for one; again only if it was lost
    assert report.totals == {"tokens": 25 * 10}  # what is shared is not counted twice
    again = run_stage(stage(rows, log, sizes), workspace)
    assert (again.done, again.skipped) == (0, 26) and log.read_text().splitlines() == worked_on


def die(batch: pa.Table) -> pa.Table:
    os._exit(1)


def test_a_batch_that_kills_every_worker_ends_the_job_and_is_told(workspace: Workspace) -> None:
    """Where a stage has no careful turns. Left to Ray, the batch would be tried for ever."""

    def build(work: Work) -> "ray.data.Dataset":
        return map_batches(work.blocks, die, tries=2, batch_format="pyarrow", batch_size=None)

    wanted = pa.table({"sample_id": ["s"], "fingerprint": ["f"]})
    stage = Stage(name="summarize", output=SUMMARIES, wanted=wanted, build=build, batch_size=4)
    with pytest.raises(RuntimeError, match="Ray gave up .WorkerCrashedError"):
        run_stage(stage, workspace)


def test_sharing_by_hand() -> None:
    due = pa.table({"sample_id": ["a", "b", "c", "d"], "fingerprint": ["x", "y", "x", "x"]})
    sharing = Sharing(due)
    assert sharing.first["sample_id"].to_pylist() == ["a", "b"]
    results = pa.table({"fingerprint": ["y", "x"], "sample_id": ["b", "a"], "text": ["Y", "X"]})
    assert sharing.expand(results).to_pylist() == [
        {"fingerprint": "y", "sample_id": "b", "text": "Y"},
        *({"fingerprint": "x", "sample_id": name, "text": "X"} for name in ("a", "c", "d")),
    ]
    assert sharing.expand(results.slice(0, 0)).num_rows == 0
