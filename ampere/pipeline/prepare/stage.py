"""The prepare stage: a catalogue's rows into the `samples` table. Needs no Ray: it reads a list, not media.

The whole catalogue is read into a spool file before the table is touched, then compared with the table.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ampere.catalog.problem import Located, Problem
from ampere.pipeline.prepare.diff import SPOOL_SCHEMA, Changes
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.records import EMBEDDINGS, FAILURES, FRAMES, SAMPLES, SUMMARIES, Sample
from ampere.store.failures import record_failures
from ampere.store.table import sql_in
from ampere.store.workspace import Workspace

BATCH = 20_000  # samples per commit, or fewer of this size
COMMIT_BYTES = 8_000_000
CHUNK = 500  # rows held as Python objects, or named in one SQL condition; a clip can have hundreds of frames
ROWS_PER_GROUP = 10_000  # of the spool file; it keeps a note on each group in memory
SHOWN = 20  # problems shown; all of them are in the report and in the ledger
LONGEST_MESSAGE = 300  # characters
PROBLEMS_REPORT = "prepare-problems.txt"


def prepare(workspace: Workspace, rows: Iterable[Located], *, prune: bool = False) -> Report:
    """Bring the samples up to a catalogue: add and update; what is no sample is a problem, with file and line.

    A sample id that occurs twice keeps its first row; the later one is a problem.

    Args:
        workspace: where to.
        rows: the whole catalogue.
        prune: remove samples that the catalogue lacks, from all tables. Not done if there was a problem: a row that
            cannot be read may be one of them. (ROPE's lines of ids that have no product any more are no such rows.)

    Raises:
        RuntimeError: another job is writing the samples, or with `prune` another table.
    """
    table = workspace.table(SAMPLES)
    report = Report("prepare", table.uri)
    start = time.monotonic()
    workspace.table(
        FAILURES
    ).create()  # by one process, before stages that run beside one another write it
    with workspace.lock(SAMPLES.name), tempfile.TemporaryDirectory(prefix="ampere-") as name:
        folder = Path(name)
        problems = Problems(folder / PROBLEMS_REPORT)
        count = _spool(rows, folder / "spool.parquet", problems)
        with Changes(folder / "spool.parquet", table.dataset()) as changes:
            problems.add(changes.duplicates())
            problems.publish(
                workspace
            )  # all that is wrong is told even if the writing is cut short
            added = _write(table.append, changes.added())
            updated = _write(table.upsert, changes.updated())
            removed = changes.removed()
            torn = changes.products_in_two_splits()
        unsure = problems.count - problems.types["NoProduct"]
        if prune and not unsure:
            _prune(workspace, removed)
        table.compact()
    report.done, report.skipped = (
        added + updated,
        count - problems.types["DuplicateId"] - added - updated,
    )
    report.failed.update(problems.types)
    gone = len(removed) if prune and not unsure else 0
    report.notes = [
        *problems.notes(workspace),
        f"samples: {added} added, {updated} updated, {gone} removed",
    ]
    if torn:
        report.notes.append(
            f"products with samples of both splits: {len(torn)}, such as {torn[0]}. A model is trained on them and "
            "then judged by them, which flatters it. Give all samples of a product one split, in every row or in none"
        )
    if prune and unsure and removed:
        report.refused = (
            f"--prune removed nothing: a row that could not be read may be one of the {len(removed)} samples that "
            "the catalogue seems to lack; mend the rows above and run again"
        )
    report.seconds = time.monotonic() - start
    return report


class Problems:
    """What is wrong with a catalogue: counted, the first shown, all written to a file and to the ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self.types: Counter[str] = Counter()
        self.first: list[str] = []

    @property
    def count(self) -> int:
        return self.types.total()

    def add(self, found: Iterable[tuple[str, Problem]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for place, problem in found:
                self.types[problem.error_type] += 1
                place, message = _in_line(place), _in_line(problem.message)
                file.write(f"{place}\t{problem.error_type}\t{message}\n")
                if len(self.first) < SHOWN:
                    self.first.append(f"{place}: {message}")

    def notes(self, workspace: Workspace) -> list[str]:
        more = self.count - len(self.first)
        return self.first + [
            f"... and {more} more; all are in {workspace.uri}/reports/{PROBLEMS_REPORT}"
        ] * bool(more)

    def publish(self, workspace: Workspace) -> None:
        """Put them into the report and the ledger, in place of those of the last run."""
        workspace.put_report(PROBLEMS_REPORT, self.path if self.count else None)
        with workspace.lock(FAILURES.name, wait=True):
            workspace.table(FAILURES).delete("stage = 'prepare'")
        with self.path.open(encoding="utf-8") as file:
            while lines := list(islice(file, BATCH)):
                places, types, messages = zip(
                    *(line.rstrip("\n").split("\t") for line in lines), strict=True
                )
                rows = {"sample_id": places, "error_type": types, "error_message": messages}
                record_failures(
                    workspace,
                    "prepare",
                    pa.table(rows | {"fingerprint": pa.nulls(len(lines), pa.string())}),
                )


def _in_line(text: str) -> str:
    """A message as a part of one line. It may quote a cell, and so hold line breaks, half characters or megabytes."""
    cut = text[:LONGEST_MESSAGE] + "..." * (len(text) > LONGEST_MESSAGE)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _spool(rows: Iterable[Located], path: Path, problems: Problems) -> int:
    """Write all samples of a catalogue, with where they stand, to a file; returns how many."""
    count = 0

    def samples(located: Iterable[Located]) -> Iterator[tuple[str, Sample]]:
        for place, row in located:
            if isinstance(row, Problem):
                problems.add([(place, row)])
            else:
                yield place, row

    good = samples(rows)
    with pq.ParquetWriter(path, SPOOL_SCHEMA, compression="zstd") as writer:
        while batch := list(islice(good, CHUNK)):
            rows_now = pa.RecordBatch.from_pylist(
                [_row(*item) for item in batch], schema=SPOOL_SCHEMA
            )
            writer.write_batch(rows_now, ROWS_PER_GROUP)
            count += len(batch)
    return count


def _row(place: str, sample: Sample) -> dict[str, object]:
    row = sample.to_row()
    return row | {"fingerprint": fingerprint(row), "place": place}


def _write(write: Callable[[pa.Table], None], tables: Iterator[pa.Table]) -> int:
    """Write tables, joined to commits that are neither many nor large; returns how many rows."""
    count, waiting = 0, []
    for table in tables:
        waiting.append(table)
        if (
            sum(t.num_rows for t in waiting) >= BATCH
            or sum(t.nbytes for t in waiting) >= COMMIT_BYTES
        ):
            write(pa.concat_tables(waiting))
            waiting.clear()
        count += table.num_rows
    if waiting:
        write(pa.concat_tables(waiting))
    return count


def _prune(workspace: Workspace, ids: list[str]) -> None:
    """Remove samples and all that was made from them; the samples last, so that a killed run finds them again.

    All locks are held to the end: a stage that began in between could still see the samples and make rows of them.
    """
    made = (FRAMES, SUMMARIES, EMBEDDINGS)
    with ExitStack() as locks:
        for spec in made:
            locks.enter_context(workspace.lock(spec.name))
        for start in range(0, len(ids), CHUNK):
            condition = sql_in("sample_id", ids[start : start + CHUNK])
            for spec in made:
                workspace.table(spec).delete(condition)
            with workspace.lock(FAILURES.name, wait=True):
                workspace.table(FAILURES).delete(f"stage != 'prepare' AND {condition}")
            workspace.table(SAMPLES).delete(condition)
