"""Labeled rows: files of JSON Lines with a sample_id in each, and a stage's run on them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.runner.stage import Stage
from ampere.records import SAMPLES
from ampere.store.workspace import Workspace
from ampere.uris import absolute, open_file

Row = dict[str, Any]
Gold = dict[str, Row]  # by sample_id


def read_gold_rows(path: str, parse: Callable[[str, str], Row], what: str) -> Gold:
    """The rows of a file by sample_id; empty lines are skipped.

    Args:
        path: local path or cloud URI.
        parse: makes a row of a line, and raises ValueError for an invalid one; its second argument
            says where the line is.
        what: of what the file should have rows, in messages.

    Raises:
        ValueError: a line is invalid, an id is duplicate, or there is no row.
    """
    gold: Gold = {}
    with open_file(absolute(path), encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = parse(line, f"{path}:{number}")
            if row["sample_id"] in gold:
                raise ValueError(f"{path}:{number}: duplicate sample_id {row['sample_id']}")
            gold[row["sample_id"]] = row
    if not gold:
        raise ValueError(f"{path} has no {what}")
    return gold


def require_column(gold: Gold, column: str, what: str, made: str) -> None:
    """Raise ValueError if a labeled row lacks what a stage needs.

    Args:
        gold: the labeled rows.
        column: that the stage reads.
        what: of what the file has rows, in messages.
        made: what the stage makes of them, in messages.
    """
    without = [sample_id for sample_id, row in gold.items() if not row.get(column)]
    if without:
        raise ValueError(
            f"{len(without)} {what} have no {column}, first {without[0]}. Add {column}, or score "
            f"the {made} of a workspace with --workspace"
        )


@contextmanager
def stage_run(
    samples: Sequence[Row], make_stage: Callable[[Workspace], Stage], what: str
) -> Iterator[tuple[Workspace, Report]]:
    """Run a stage on labeled rows in a temporary workspace, which ends with the context.

    Args:
        samples: rows of the samples table.
        make_stage: of the workspace.
        what: of what there are rows, in messages.

    Raises:
        RuntimeError: rows were not processed, or all failed, so scores would be misleading.
    """
    with tempfile.TemporaryDirectory(prefix="ampere-") as folder:
        workspace = Workspace.create(folder)
        workspace.table(SAMPLES).append(samples)
        report = run_stage(make_stage(workspace), workspace)
        if not report.succeeded:
            raise RuntimeError(
                f"cannot score {len(samples)} {what}: {report.unprocessed} were not processed, "
                f"{report.failed.total()} failed ({', '.join(report.failed) or 'no errors'}). Run "
                "it again"
            )
        yield workspace, report
