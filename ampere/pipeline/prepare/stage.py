"""The prepare stage: reads a catalog into the `samples` table. It uses no Ray and reads no media.

The whole catalog is first read into a spool file, which is then compared with the table.
"""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ampere.catalog.extra_columns import ColumnTypes
from ampere.catalog.problem import Located, Problem
from ampere.fingerprint import fingerprint
from ampere.pipeline.metrics import publish_report
from ampere.pipeline.prepare.diff import SPOOL_SCHEMA, Changes
from ampere.pipeline.runner.report import Report
from ampere.records import (
    FAILURES,
    FEATURES,
    FRAMES,
    SAMPLES,
    SUMMARIES,
    TRANSCRIPTS,
    Origin,
    Sample,
)
from ampere.store.embeddings import embedding_tables, embeddings_spec
from ampere.store.failures import record_failures
from ampere.store.samples import delete_orphans
from ampere.store.table import IDS_PER_CONDITION
from ampere.store.workspace import Workspace

# Limits of one commit; the first that is reached applies.
COMMIT_ROWS = 20_000
COMMIT_BYTES = 8_000_000
# Rows held as Python objects at once. A clip can have hundreds of frames.
CHUNK = 500
ROWS_PER_GROUP = 10_000  # of the spool file; the writer holds metadata of each group in memory
MAX_PROBLEMS_SHOWN = 20  # all are in the report file and in the failures table
MAX_MESSAGE_LENGTH = 300  # characters
PROBLEMS_REPORT = "prepare-problems.txt"


def prepare(
    workspace: Workspace,
    rows: Iterable[Located],
    *,
    prune: bool = False,
    prune_limit: float = 1.0,
) -> Report:
    """Add and update samples from a catalog; invalid rows are reported with file and line.

    The first row of a duplicate sample_id is kept, the later ones are invalid.

    Args:
        workspace: the workspace whose samples are updated.
        rows: the whole catalog.
        prune: delete samples that are no longer in the catalog, from all tables. Refused if the
            catalog has invalid rows, since each may be one of these samples. (ROPE's lines of ids
            without a product do not count as invalid here.)
        prune_limit: largest share of the samples that `prune` may delete (0-1). A larger one is
            refused: the catalog may be incomplete.

    Raises:
        RuntimeError: another job is writing the samples.
        ValueError: a further column has cells of different types; nothing is written.
    """
    table = workspace.table(SAMPLES)
    report, before = Report("prepare", table.uri), table.count()
    start = time.monotonic()
    # Created here, by one process, since concurrent stages write it.
    workspace.table(FAILURES).create()
    with workspace.lock(SAMPLES.name), tempfile.TemporaryDirectory(prefix="ampere-") as name:
        folder = Path(name)
        problems = Problems(folder / PROBLEMS_REPORT)
        types = ColumnTypes(table.extra_columns())
        count = _spool(rows, folder / "spool.parquet", problems, types)
        table.add_columns(types.fields())
        with Changes(folder / "spool.parquet", table.dataset(), types) as changes:
            problems.add(changes.duplicates())
            problems.publish(workspace)  # first, so that they are reported even if a write fails
            added = _write(table.append, changes.added())
            updated = _write(table.upsert, changes.updated())
            missing = changes.deleted()
            leaked = changes.products_in_both_splits()
        invalid = problems.count - problems.types["NoProduct"]
        refusal = _prune_refusal(missing, invalid, before, prune_limit) if prune else ""
        deleted = missing if prune and not refusal else []
        if prune and not refusal:
            _delete(workspace, deleted)
        table.compact()
    report.done = added + updated
    report.skipped = count - problems.types["DuplicateId"] - report.done
    report.failed.update(problems.types)
    report.notes = [
        *problems.notes(workspace),
        f"samples: {added} added, {updated} updated, {len(deleted)} deleted",
    ]
    if leaked:
        report.notes.append(
            f"products in both splits: {len(leaked)}, such as {leaked[0]}. Models are trained and "
            "evaluated on them, which inflates the scores. Give all samples of a product the same "
            "split, in every row or in none"
        )
    report.refused = refusal
    report.seconds = time.monotonic() - start
    publish_report(report)
    return report


def _prune_refusal(missing: list[str], invalid: int, before: int, limit: float) -> str:
    """Why samples that are not in the catalog are not deleted; empty if they may be."""
    if not missing:
        return ""
    if invalid:
        return (
            f"--prune deleted nothing: each invalid row may be one of the {len(missing)} samples "
            "that are not in the catalog. Fix the rows above and rerun"
        )
    share = len(missing) / before
    if share <= limit:
        return ""
    return (
        f"--prune deleted nothing: it would delete {len(missing)} of {before} samples "
        f"({share:.0%}), such as {', '.join(missing[:3])}; the limit is {limit:.0%}. If the "
        f"catalog is complete, rerun with --prune-limit {math.ceil(100 * share) / 100:g}"
    )


class Problems:
    """The problems of a catalog: counted, the first ones shown, all in a file and a table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self.types: Counter[str] = Counter()
        self.first: list[str] = []

    @property
    def count(self) -> int:
        """Number of problems."""
        return self.types.total()

    def add(self, problems: Iterable[tuple[str, Problem]]) -> None:
        """Count problems and append them, with their places, to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            for place, problem in problems:
                self.types[problem.error_type] += 1
                place, message = _escaped(place), _in_line(problem.message)
                file.write(f"{place}\t{problem.error_type}\t{message}\n")
                if len(self.first) < MAX_PROBLEMS_SHOWN:
                    self.first.append(f"{place}: {message}")

    def notes(self, workspace: Workspace) -> list[str]:
        """Lines for the user: the first problems, and where to find the others."""
        more = self.count - len(self.first)
        return self.first + [
            f"... and {more} more, see {workspace.uri}/reports/{PROBLEMS_REPORT}"
        ] * bool(more)

    def publish(self, workspace: Workspace) -> None:
        """Replace the problems of the last run in the report file and the failures table."""
        workspace.put_report(PROBLEMS_REPORT, self.path if self.count else None)
        with workspace.lock(FAILURES.name, wait=True):
            workspace.table(FAILURES).delete(pc.field("stage") == "prepare")
        with self.path.open(encoding="utf-8") as file:
            while lines := list(islice(file, COMMIT_ROWS)):
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
    """Shorten and escape a message to fit in one line.

    A message may quote a cell, with line breaks, unpaired surrogates or megabytes of text.
    """
    return _escaped(text[:MAX_MESSAGE_LENGTH] + "..." * (len(text) > MAX_MESSAGE_LENGTH))


def _escaped(text: str) -> str:
    """A text in one line; of a place all of it, since two places may begin alike."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _spool(rows: Iterable[Located], path: Path, problems: Problems, types: ColumnTypes) -> int:
    """Write all samples of a catalog, with their places, to a file; returns their number."""
    count = 0

    def samples(located: Iterable[Located]) -> Iterator[tuple[str, Sample]]:
        for place, row in located:
            if isinstance(row, Problem):
                problems.add([(place, row)])
            else:
                types.add(row.extra, place)
                yield place, row

    valid = samples(rows)
    with pq.ParquetWriter(path, SPOOL_SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(valid, CHUNK)):
            batch = pa.RecordBatch.from_pylist([_row(*item) for item in chunk], schema=SPOOL_SCHEMA)
            writer.write_batch(batch, ROWS_PER_GROUP)
            count += len(chunk)
    return count


def _row(place: str, sample: Sample) -> dict[str, object]:
    row = sample.to_row()
    return row | {"fingerprint": fingerprint(row), "place": place}


def _write(write: Callable[[pa.Table], None], tables: Iterator[pa.Table]) -> int:
    """Write tables, merged to few commits of limited size; returns the number of rows."""
    count, waiting = 0, []
    for table in tables:
        waiting.append(table)
        rows, size = sum(t.num_rows for t in waiting), sum(t.nbytes for t in waiting)
        if rows >= COMMIT_ROWS or size >= COMMIT_BYTES:
            write(pa.concat_tables(waiting))
            waiting.clear()
        count += table.num_rows
    if waiting:
        write(pa.concat_tables(waiting))
    return count


def _delete(workspace: Workspace, ids: list[str]) -> None:
    """Delete samples, and then the rows that were made from them.

    Stages may run meanwhile: they drop the rows of samples that are gone before each commit. If the
    job is killed in between, the rows without a sample are deleted by the next one. A sample that
    came live meanwhile stays.
    """
    origin = pc.field("origin")
    is_of_catalog = origin.is_null() | (origin != str(Origin.LIVE))
    for start in range(0, len(ids), IDS_PER_CONDITION):
        chunk = ids[start : start + IDS_PER_CONDITION]
        workspace.table(SAMPLES).delete(pc.field("sample_id").isin(chunk) & is_of_catalog)
    embeddings = [embeddings_spec(name) for name in embedding_tables(workspace)]
    for spec in (FRAMES, TRANSCRIPTS, SUMMARIES, FEATURES, *embeddings):
        delete_orphans(workspace, workspace.table(spec))
    delete_orphans(workspace, workspace.table(FAILURES), pc.field("stage") != "prepare")
