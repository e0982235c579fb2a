"""The stage runner: process the rows that need it, commit results, record failures.

This process is the only one that commits to the output table.
"""

import json
import queue
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ampere.cluster import connect
from ampere.config.settings import to_json
from ampere.logs import stage_of_log
from ampere.pipeline.metrics import publish_report
from ampere.pipeline.runner.cluster_use import cluster_use
from ampere.pipeline.runner.commit import Committer, remove_rows
from ampere.pipeline.runner.fragments import in_tasks
from ampere.pipeline.runner.plan import Plan
from ampere.pipeline.runner.progress import Progress
from ampere.pipeline.runner.ray_data import explained_errors
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.pipeline.runner.stage_metrics import stage_metrics
from ampere.store.failures import compact_failures
from ampere.store.leftovers import removed_leftovers
from ampere.store.settings import settings_report
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

MAX_BLOCKS = 50_000  # of one job, since Ray keeps an entry for each
COMMIT_INTERVAL_S = 1.0  # each commit is a version, and old versions are kept for days


class WorkerDied(RuntimeError):
    """A row's worker died in every attempt, so the row may be what kills it."""


def run_stage(
    stage: Stage,
    workspace: Workspace,
    *,
    settings: object = None,
    retry_failed: bool = False,
    only_retryable: bool = False,
    prune_orphans: bool = True,
) -> Report:
    """Process all rows of a stage that are pending or stale.

    Args:
        stage: what to run.
        workspace: where its tables are.
        settings: dataclass that the stage was made with, saved as its report; None keeps the last.
        retry_failed: process failed rows again.
        only_retryable: of these, only those whose error may pass by itself.
        prune_orphans: remove output rows that the stage does not want any more.

    Raises:
        RuntimeError: another job runs the same stage, or the Ray Data pipeline failed.
    """
    output = workspace.table(stage.output)
    with stage_of_log(stage.name), workspace.lock(stage.name):
        newest_fragment = output.newest_fragment()
        plan = stage.plan(workspace)
        if settings is not None:
            workspace.write_report(settings_report(stage.name), to_json(settings))
        report = Report(
            stage.name, output.uri, skipped=plan.counts()["done"], unit=stage.unit + "s"
        )
        if prune_orphans:
            _remove_orphans(stage, workspace, plan, report)
        rows = plan.rows_to_process(retry_failed=retry_failed, only_retryable=only_retryable)
        committer = Committer(workspace, stage, report, plan.present(), newest_fragment)
        with removed_leftovers(workspace, output) if stage.writes_fragments else nullcontext():
            _process(rows, stage, committer)
            stage.finish(output, report)
            output.compact(in_tasks())
        compact_failures(workspace)
        if report.figures:
            figures = json.dumps(report.figures, indent=2)
            workspace.write_report(f"{stage.name}-figures.json", figures)
    return report


def _remove_orphans(stage: Stage, workspace: Workspace, plan: Plan, report: Report) -> None:
    orphans = plan.orphans.to_pylist()
    if orphans:
        remove_rows(workspace.table(stage.output), orphans, stage.owned_rows())
        report.notes.append(
            f"{stage.name}: removed {len(orphans)} orphaned rows (their samples no longer have "
            "input)"
        )


def _process(rows: pa.Table, stage: Stage, committer: Committer) -> None:
    """Commit the results of all rows: those that are known without work, then the others."""
    report, start = committer.report, time.monotonic()
    known, remaining = stage.without_work(rows)
    for batch in known:
        committer.commit(batch)
    if remaining.num_rows:
        started = time.time()
        _process_in_tasks(remaining, stage, committer, total=rows.num_rows - report.processed)
        if use := cluster_use(started):
            report.figures["cluster"] = use.figures() | {"first_row_s": report.first_seconds}
            report.notes.append(f"{stage.name}: {use}")
    elif report.processed:
        publish_report(report)
    report.unprocessed = rows.num_rows - report.processed - committer.dropped
    if committer.dropped:
        report.notes.append(
            f"{stage.name}: dropped {committer.dropped} rows of samples that were deleted meanwhile"
        )
    report.seconds = time.monotonic() - start


def _process_in_tasks(rows: pa.Table, stage: Stage, committer: Committer, *, total: int) -> None:
    """Run the stage's Ray Data pipeline and commit its batches; retry rows that were lost.

    Args:
        rows: the rows to process, without duplicates of equal results.
        stage: whose rows they are.
        committer: for the results.
        total: rows that will be committed in the end, duplicates included.
    """
    connect(stage.gpus, f"{stage.name.split('-')[0]}.gpus")
    report, batch_sizes = committer.report, (stage.batch_size, *stage.retry.batch_sizes)
    goal = report.processed + total

    def pending() -> int:
        return goal - report.processed - committer.dropped

    with (
        stage_metrics(report, pending),
        Progress(stage.name, total, stage.unit, stage.startup) as progress,
    ):
        for attempt, batch_size in enumerate(batch_sizes, start=1):
            retryable = stage.retry.errors if attempt < len(batch_sizes) else ()
            results = _run_pipeline(rows, stage, batch_size, isolated=attempt > 1)
            batches = _batches(results)
            batches = prefetched(_timed(batches, report) if attempt == 1 else batches)
            for batch in stage.collect(batches, report):
                batch = batch.filter(pc.invert(_is_one_of(batch["error_type"], retryable)))
                expanded = stage.expand(batch)
                committer.commit(expanded)
                progress.update(expanded.num_rows, report)
            if not stage.retry.batch_sizes:
                return
            rows = rows.filter(pc.invert(_is_one_of(rows["sample_id"], committer.committed)))
            if not rows.num_rows:
                return
    error = WorkerDied(
        f"the worker of this row died in each of {len(batch_sizes)} attempts, in the last one "
        "with few or no other rows"
    )
    lost = [error_row(*row, error) for row in _ids_and_fingerprints(rows)]
    committer.commit(stage.expand(result_table(stage.output, lost)))


def _run_pipeline(
    rows: pa.Table, stage: Stage, batch_size: int, *, isolated: bool
) -> "ray.data.Dataset":
    """The pipeline of a stage, which has not started yet."""
    import ray.data

    if not isolated:
        cores = int(ray.cluster_resources().get("CPU", 1))
        batch_size = stage.rows_per_block(rows.num_rows, cores)
    batch_size = max(batch_size, -(-rows.num_rows // MAX_BLOCKS))
    # `from_arrow` would run a task of a whole core for each block; a cluster adds nodes for them.
    blocks = ray.data.from_blocks(
        [rows.slice(i, batch_size) for i in range(0, rows.num_rows, batch_size)]
    )
    if stage.retry.batch_sizes:
        blocks.context.max_errored_blocks = -1  # a lost block is retried; it does not end the job
    return stage.transform(Work(rows, blocks, batch_size, isolated))


def _is_one_of(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), pa.string()))


def _ids_and_fingerprints(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["sample_id"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True)


def _batches(results: "ray.data.Dataset") -> Iterator[pa.Table]:
    """Blocks of a Ray dataset as they are ready, in any order.

    Raises:
        RuntimeError: the pipeline failed.
    """
    with explained_errors("Ray Data pipeline"):
        yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _timed(batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
    """Note in the report when each batch arrives."""
    start = time.monotonic()
    for batch in batches:
        report.arrivals.append((time.monotonic() - start, batch.num_rows))
        yield batch


def prefetched(
    batches: Iterator[pa.Table], limit: int = 64, interval_s: float = COMMIT_INTERVAL_S
) -> Iterator[pa.Table]:
    """Batches in order; those that arrive within an interval, or meanwhile, are joined.

    Args:
        batches: read in a thread of its own.
        limit: batches that the thread reads ahead; when they are all there, they are committed
            before the interval ends.
        interval_s: least time between two batches, except for the last.
    """
    waiting: queue.Queue[pa.Table | BaseException | None] = queue.Queue(limit)

    def read() -> None:
        try:
            for batch in batches:
                waiting.put(batch)
            waiting.put(None)
        except BaseException as error:  # raised again where the batches are used
            waiting.put(error)

    # A daemon: if a commit fails, nobody waits for the rest.
    threading.Thread(target=read, daemon=True, name="results").start()
    due = time.monotonic()
    while True:
        items = [waiting.get()]
        while isinstance(items[-1], pa.Table) and len(items) < limit:
            try:
                items.append(waiting.get(timeout=max(0.0, due - time.monotonic())))
            except queue.Empty:
                break
        due = time.monotonic() + interval_s
        if tables := [item for item in items if isinstance(item, pa.Table)]:
            yield pa.concat_tables(tables)
        last = items[-1]
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return
