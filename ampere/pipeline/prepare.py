"""The prepare stage: a catalogue's rows into the `samples` table. Needs no Ray: it reads a list, not media."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from ampere.catalog.problem import Located, Problem
from ampere.pipeline.runner import Report, record_failures
from ampere.records import FAILURES, SAMPLES, Sample
from ampere.workspace import Workspace

BATCH = 20_000  # samples per commit
SHOWN = 20  # problems shown; all of them are in the ledger


def prepare(workspace: Workspace, rows: Iterable[Located]) -> Report:
    """Write samples, replacing those of the same id; what is no sample goes to the ledger, with file and line.

    A sample id that occurs twice keeps its first row; the later one is a problem.
    """
    table = workspace.table(SAMPLES)
    report = Report("prepare", table.uri)
    problems: list[tuple[str, Problem]] = []
    start = time.monotonic()
    with workspace.lock(SAMPLES.name):
        distinct = _distinct(rows, problems)
        while batch := list(islice(distinct, BATCH)):
            table.upsert([sample.to_row() for sample in batch])
            report.done += len(batch)
        with workspace.lock(FAILURES.name, wait=True):
            workspace.table(FAILURES).delete("stage = 'prepare'")
    if problems:
        record_failures(workspace, "prepare", _ledger_rows(problems))
    report.failed.update(problem.error_type for _, problem in problems)
    report.notes += [f"{where}: {problem.message}" for where, problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        report.notes.append(f"... and {len(problems) - SHOWN} more; see `ampere status --failures`")
    report.seconds = time.monotonic() - start
    return report


def _distinct(rows: Iterable[Located], problems: list[tuple[str, Problem]]) -> Iterator[Sample]:
    """Yield each sample id once and put everything else into `problems`."""
    seen: dict[str, str] = {}
    for where, row in rows:
        if isinstance(row, Problem):
            problems.append((where, row))
        elif row.sample_id in seen:
            message = f"sample_id {row.sample_id} stands already at {seen[row.sample_id]}, which is kept"
            problems.append((where, Problem("DuplicateId", message)))
        else:
            seen[row.sample_id] = where
            yield row


def _ledger_rows(problems: list[tuple[str, Problem]]) -> pa.Table:
    rows = {
        "sample_id": [where for where, _ in problems],
        "error_type": [problem.error_type for _, problem in problems],
        "error_message": [problem.message for _, problem in problems],
    }
    return pa.table(rows | {"fingerprint": pa.nulls(len(problems), pa.string())})
