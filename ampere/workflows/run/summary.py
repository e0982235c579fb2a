"""What a run did, as JSON-like values for its page, and as the last lines of its output."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ampere.config.settings import Settings
from ampere.pipeline.runner.pool_stats import HOUR_S
from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES
from ampere.reports.failure_changes import Failed, failed_rows, failure_changes
from ampere.reports.score_drift import measure_drift
from ampere.reports.status import stages
from ampere.store.indexes import serving_meta
from ampere.store.workspace import Workspace
from ampere.workflows.run.steps import Outcome


def summarize_run(
    workspace: Workspace,
    settings: Settings,
    outcomes: Sequence[Outcome],
    *,
    failed_before: Failed,
    command: str,
    started: datetime,
    seconds: float,
    hourly_price: float,
) -> dict[str, Any]:
    """The run as `ampere.reports.run_page.write_run_page` takes it.

    Args:
        workspace: of the run.
        settings: of its stages.
        outcomes: of its stages, in order.
        failed_before: the failures before the run.
        command: as it was typed.
        started: with its time zone.
        seconds: duration of the stages.
        hourly_price: of what they ran on; 0: unknown.
    """
    is_complete = all(outcome.succeeded for outcome in outcomes)
    rows = [stage_row(outcome, hourly_price) for outcome in outcomes]
    done = {outcome.stage for outcome in outcomes if outcome.state == "done"}
    changes = failure_changes(failed_before, failed_rows(workspace))
    return {
        "started": started.isoformat(),
        "command": command,
        "workspace": workspace.uri,
        "status": 0 if is_complete else 1,
        "seconds": seconds,
        "hourly_price": hourly_price,
        "cost": seconds / HOUR_S * hourly_price if hourly_price else None,
        "samples": workspace.table(SAMPLES).count(),
        "stages": rows,
        "totals": {name: sum(row[name] or 0 for row in rows) for name in ("done", "failed")},
        "failures": dataclasses.asdict(changes)
        | {"new_count": changes.new_count, "repeated_count": changes.repeated_count},
        "recall": recall(workspace, settings) if "index" in done else None,
        "mR1": mean_recall(workspace) if "evaluate" in done else None,
        "left": left_lines(outcomes),
        **drift(workspace, settings, is_indexed="index" in done),
    }


def stage_row(outcome: Outcome, hourly_price: float) -> dict[str, Any]:
    """A stage as a row of the table; None where there is no number."""
    report = outcome.report or Report(outcome.stage, "")
    is_known = outcome.report is not None
    return {
        "stage": outcome.stage,
        "state": outcome.state if outcome.succeeded or not is_known else "failed",
        "done": report.done if is_known else None,
        "before": report.skipped if is_known else None,
        "failed": report.failed.total() if is_known else None,
        "pending": outcome.pending if is_known or outcome.pending else None,
        "seconds": outcome.seconds,
        "cost": outcome.seconds / HOUR_S * hourly_price if hourly_price else None,
        "reason": outcome.reason or report.refused,
        "figures": report.figures,
    }


def count_pending(workspace: Workspace, settings: Settings, outcomes: Sequence[Outcome]) -> None:
    """Count the rows that wait for the stages that ended early."""
    left = [outcome for outcome in outcomes if outcome.state in ("ended", "failed")]
    if not left or not workspace.table(SAMPLES).count():
        return
    by_name = stages(workspace, settings)
    for outcome in left:
        names = {"embed": f"embed-{settings.embed.model}"}
        stage = by_name.get(names.get(outcome.stage, outcome.stage))
        if stage is None:
            continue
        try:
            counts = stage().plan(workspace).counts()
        except (FileNotFoundError, ValueError):  # such as no frames yet
            continue
        outcome.pending = counts["pending"] + counts["stale"]


def left_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """What another run has to do; empty if nothing is left."""
    lines, not_run = [], []
    for outcome in outcomes:
        if outcome.succeeded:
            continue
        if outcome.state == "not run":
            not_run.append(outcome.stage)
            continue
        refused = outcome.report.refused if outcome.report else ""
        state = "failed: " * (outcome.state == "failed")
        reason = outcome.reason or refused or "its report has the reasons"
        pending = f"; {outcome.pending} rows are pending" * bool(outcome.pending)
        lines.append(f"{outcome.stage}: {state}{reason}{pending}")
    if not_run:
        lines.append(f"not run: {', '.join(not_run)}")
    return lines


def recall(workspace: Workspace, settings: Settings) -> dict[str, float] | None:
    """Recall@10 by domain that the gate measured; None for an engine without a gate of ours."""
    try:
        return serving_meta(workspace, settings.index.model).get("gate")
    except FileNotFoundError:
        return None


def mean_recall(workspace: Workspace) -> float | None:
    """mR1 of the first model of the last evaluation, in percent."""
    return json.loads(workspace.read_report("evaluation.json") or "{}").get("mR1")


def drift(workspace: Workspace, settings: Settings, *, is_indexed: bool) -> dict[str, Any]:
    """The change of the answers since the last run, or why there is none."""
    if not is_indexed:
        return {"drift": None, "drift_reason": "not measured: the run did not update the index"}
    try:
        measured = measure_drift(workspace, settings.index)
    except (ValueError, OSError, RuntimeError) as error:
        return {"drift": None, "drift_reason": f"not measured: {error}"}
    return {"drift": dataclasses.asdict(measured) | {"text": str(measured)}, "drift_reason": ""}
