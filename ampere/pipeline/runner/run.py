"""The stage runner: takes the rows that are due, commits results in small batches, keeps a ledger of what failed.

A stage is a `Stage`: what it wants, and how a Ray Data set turns due rows into result rows. A result row has the
columns of the output table and two more, `error_type` and `error_message`; where those are set, the row goes to the
ledger instead. This process is the one committer of the output table.
"""

import queue
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ampere.cluster import connect, require_gpus
from ampere.config.settings import to_json
from ampere.pipeline.runner.commit import Committer, remove_rows
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.pipeline.summarize.dedupe import Sharing
from ampere.store.failures import compact_ledger
from ampere.store.settings import settings_report
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

MAX_BLOCKS = 50_000  # of one job, for Ray keeps an entry for each
TASKS_PER_CORE = 8
ERROR_LINE = re.compile(r"\s*(\(.*\) )?[\w.]+(Error|Exception): ")


def run_stage(
    stage: Stage, workspace: Workspace, *, settings: object = None, retry_failed: bool = False
) -> Report:
    """Work on all rows of a stage that are due, and return what became of them.

    Args:
        settings: what the stage was made with, to be kept in its report; None keeps the one before.

    Raises:
        RuntimeError: another job is writing the same table.
    """
    output = workspace.table(stage.output)
    with workspace.lock(stage.output.name):
        if settings is not None:
            workspace.write_report(settings_report(stage.name), to_json(settings))
        plan = stage.plan(workspace)
        due = plan.due(retry_failed=retry_failed)
        report = Report(
            stage.name, output.uri, skipped=plan.counts()["done"], unit=stage.unit + "s"
        )
        committer = Committer(workspace, stage, report, plan.present())
        if not stage.partial and (orphans := plan.orphans.to_pylist()):
            remove_rows(output, orphans, stage.where)
            report.notes.append(
                f"{stage.name}: {len(orphans)} rows removed, of samples that it has no input for any more"
            )
        start = time.monotonic()
        if stage.settle is not None:
            settled, due = stage.settle(due)
            for batch in settled:
                committer.commit(batch)
        if due.num_rows:
            _work_on(due, stage, committer)
        report.seconds = time.monotonic() - start
        if (
            stage.outdated is not None
            and not report.unanswered
            and (old := output.count(stage.outdated))
        ):
            output.delete(stage.outdated)
            report.notes.append(f"{stage.name}: {old} rows removed, whose place these take")
        output.compact()
        compact_ledger(workspace)
        if stage.describe is not None and (note := stage.describe(output)):
            report.notes.append(note)
    return report


def _work_on(due: pa.Table, stage: Stage, committer: "Committer") -> None:
    """Run the stage's Ray Data pipeline over rows and commit every block that comes out; what is lost, again."""
    connect()
    require_gpus(stage.gpus, f"{stage.name.split('-')[0]}.gpus")
    report = committer.report
    before = report.done + report.failed.total()
    sharing = Sharing(due) if stage.share else None
    left = due if sharing is None else sharing.first
    sizes = (stage.batch_size, *stage.careful_sizes)
    start = time.monotonic()
    with tqdm(
        total=due.num_rows, desc=stage.name, unit=stage.unit, file=sys.stderr, mininterval=1.0
    ) as bar:
        for turn, size in enumerate(sizes):
            answered: list[str] = []
            for batch in _results(left, stage, size, careful=turn > 0):
                if turn < len(sizes) - 1:
                    batch = batch.filter(
                        pc.invert(_is_one_of(batch["error_type"], stage.passing_errors))
                    )
                answered += batch["sample_id"].to_pylist()
                for name, (column, scale) in stage.totals.items():
                    report.totals[name] = (
                        report.totals.get(name, 0.0) + (pc.sum(batch[column]).as_py() or 0) / scale
                    )
                batch = batch if sharing is None else sharing.expand(batch)
                committer.commit(batch)
                report.first_seconds = report.first_seconds or time.monotonic() - start
                told: dict[str, Any] = {"failed": report.failed.total()}
                told |= {
                    f"{name}/s": f"{n / (time.monotonic() - start):.3g}"
                    for name, n in report.totals.items()
                }
                bar.set_postfix(told, refresh=False)
                bar.update(batch.num_rows)
            left = left.filter(pc.invert(_is_one_of(left["sample_id"], answered)))
            if not left.num_rows:
                break
    if left.num_rows and stage.careful_sizes:
        lost = result_table(stage.output, [_lost_row(row, len(sizes)) for row in left.to_pylist()])
        committer.commit(lost if sharing is None else sharing.expand(lost))
    report.unanswered = due.num_rows - (report.done + report.failed.total() - before)


def _results(rows: pa.Table, stage: Stage, size: int, *, careful: bool) -> Iterator[pa.Table]:
    """The result rows of some rows, in whatever order and portions they come."""
    import ray.data

    size = max(size, -(-rows.num_rows // MAX_BLOCKS))
    if stage.spread:
        cores = int(ray.cluster_resources().get("CPU", 1))
        size = min(size, max(1, rows.num_rows // (TASKS_PER_CORE * cores)))
    blocks = ray.data.from_arrow([rows.slice(i, size) for i in range(0, rows.num_rows, size)])
    if stage.careful_sizes:
        blocks.context.max_errored_blocks = (
            -1
        )  # a block that is lost costs its rows one turn, not the job
    batches = gathered(_batches(stage.build(Work(rows, blocks, size, careful))))
    return batches if stage.assemble is None else stage.assemble(batches)


def _is_one_of(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), pa.string()))


def _lost_row(row: dict[str, Any], turns: int) -> dict[str, str]:
    error = WorkerDied(
        f"the worker that had this row died, {turns} times, the last time with few or no other rows"
    )
    return error_row(row["sample_id"], row["fingerprint"], error)


class WorkerDied(RuntimeError):
    """A row's worker was lost each time, so the row may well be what kills it."""


def _batches(results: "ray.data.Dataset") -> Iterator[pa.Table]:
    """Blocks as they come, in whatever order.

    Raises:
        RuntimeError: Ray gave up.
    """
    from ray.exceptions import RayError

    try:
        yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except RayError as error:
        raise RuntimeError(
            f"Ray gave up ({type(error).__name__}: {cause_of(str(error))}). What was done is kept; run the stage again "
            "to go on. A worker's own words are under /tmp/ray/session_latest/logs on its machine"
        ) from error


def cause_of(report: str) -> str:
    """What an error's report ends in: its last line `SomeError: ...` and what follows, but for a pointer to the web."""
    lines = [
        line for line in report.strip().splitlines() if "https://errors.pydantic.dev" not in line
    ]
    named = [at for at, line in enumerate(lines) if ERROR_LINE.match(line)]
    return " ".join(" ".join(lines[named[-1] if named else -1 :]).split())


def gathered(batches: Iterator[pa.Table], most: int = 64) -> Iterator[pa.Table]:
    """Batches as they come, those that came meanwhile joined: a slow commit is followed by a larger one.

    Args:
        batches: read in a thread of its own, at most `most` ahead.
    """
    waiting: queue.Queue[pa.Table | BaseException | None] = queue.Queue(most)

    def read() -> None:
        try:
            for batch in batches:
                waiting.put(batch)
            waiting.put(None)
        except BaseException as error:  # to be raised where the batches are used
            waiting.put(error)

    # A daemon: where a commit fails, nobody waits for the rest.
    threading.Thread(target=read, daemon=True, name="results").start()
    while True:
        first = waiting.get()
        found = [
            first,
            *(waiting.get() for _ in range(waiting.qsize())),
        ]  # nobody else takes from it
        if tables := [item for item in found if isinstance(item, pa.Table)]:
            yield pa.concat_tables(tables)
        last = found[-1]
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return
