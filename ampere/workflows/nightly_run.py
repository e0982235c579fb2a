"""`ampere run`: the stages in sequence, with one report page and one exit status.

The stages are those of the single commands, which hands them over as functions; `run/` has the
parts. A run can be killed at any time: the next one does what is left.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ampere.config.settings import Settings
from ampere.reports.failure_changes import failed_rows
from ampere.reports.run_page import stage_table, write_run_page
from ampere.store.workspace import Workspace
from ampere.workflows.run.budget import TimeBudget
from ampere.workflows.run.steps import Outcome, Step, only_run, run_steps
from ampere.workflows.run.summary import count_pending, summarize_run


def run_night(
    workspace: Workspace,
    settings: Settings,
    steps: Sequence[Step],
    budget: TimeBudget,
    hourly_price: float = 0.0,
) -> int:
    """Run the stages, write the report page, print what was done and what to do next.

    Args:
        workspace: of the run.
        settings: of its stages.
        steps: the stages, in order.
        budget: of time; not started yet.
        hourly_price: of what they run on; 0: unknown.

    Returns:
        The exit status: 0 if nothing is left for another run.

    Raises:
        RuntimeError: another run is working in the workspace.
    """
    started, start = datetime.now(UTC), time.monotonic()
    with only_run(workspace):
        failed_before = failed_rows(workspace)
        with budget:
            outcomes = run_steps(steps, budget)
        seconds = time.monotonic() - start
        count_pending(workspace, settings, outcomes)
        run = summarize_run(
            workspace,
            settings,
            outcomes,
            failed_before=failed_before,
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            started=started,
            seconds=seconds,
            hourly_price=hourly_price,
        )
        page = write_run_page(workspace, run)
    print(f"\n{stage_table(run)}\n", flush=True)
    print("\n".join([*last_lines(workspace, outcomes, run["left"]), f"Report: {page}"]), flush=True)
    return run["status"]


def last_lines(workspace: Workspace, outcomes: Sequence[Outcome], left: Sequence[str]) -> list[str]:
    """What is left, and what to do next."""
    done = {outcome.stage for outcome in outcomes if outcome.succeeded and outcome.report}
    # The full path works without an active environment.
    program = sys.argv[0] if Path(sys.argv[0]).name == "ampere" else "ampere"
    lines = [f"left: {line}" for line in left]
    if left:
        first = next(outcome.stage for outcome in outcomes if not outcome.succeeded)
        lines.append(
            f"Next: {program} run --workspace {workspace.uri} --from {first}  "
            "# or the same command again: finished work is kept"
        )
    if "index" in done:
        lines.append(f"Next: {program} serve --workspace {workspace.uri}")
    return lines
