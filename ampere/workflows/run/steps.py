"""The stages of `ampere run`, one after another, and what became of each.

The caller gives the stages as functions: they are those of the single commands. A stage that raises
ends the run, and so does the time budget, except that the index is still brought up to date.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from ampere.cluster import disconnect
from ampere.interrupts import is_interrupted
from ampere.logs import stage_of_log
from ampere.media.decoder import MediaError
from ampere.pipeline.runner.report import Report
from ampere.store.workspace import Workspace
from ampere.workflows.run.budget import TimeBudget

EXPECTED = (ValueError, MediaError, RuntimeError, OSError, ImportError)
State = Literal["done", "skipped", "failed", "ended", "not run"]


@dataclass(frozen=True)
class Step:
    """A stage of the run.

    Attributes:
        stage: its name.
        work: runs it.
        skipped: why it is not needed, asked right before it would run; empty: it is.
        check: what makes the stage impossible, asked before any stage after `prepare`; empty:
            nothing.
    """

    stage: str
    work: Callable[[], Report]
    skipped: Callable[[], str] = str
    check: Callable[[], str] = str


@dataclass
class Outcome:
    """What became of a stage.

    Attributes:
        state: done: it returned a report; ended: by the time budget; failed: it raised; skipped: it
            was not needed; not run: the run ended before.
        report: of a stage that is done.
        reason: why it was skipped, ended or failed.
        pending: rows that wait for it.
    """

    stage: str
    state: State
    report: Report | None = None
    reason: str = ""
    seconds: float = 0.0
    pending: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether nothing of this stage is left to be done by another run."""
        if self.report is not None:
            return self.report.succeeded
        return self.state == "skipped"


@contextmanager
def only_run(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace against other runs.

    Raises:
        RuntimeError: another run holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(workspace.lock("run"))
        except RuntimeError as error:
            raise RuntimeError(
                f"another `ampere run` is working in {workspace.uri}; this one changed nothing. "
                "Wait for the other to end, or stop it"
            ) from error
        yield


def run_steps(
    steps: Sequence[Step], budget: TimeBudget, end_work: Callable[[], None] = disconnect
) -> list[Outcome]:
    """Run the stages in their order, and print their reports.

    Args:
        steps: the stages.
        budget: of time; running.
        end_work: ends what a stage that the budget ended still runs.
    """
    outcomes: list[Outcome] = []
    is_checked = False
    for step in steps:
        if not is_checked and step.stage != "prepare":
            is_checked = True
            problems = [(other.stage, other.check()) for other in steps]
            if problem := next((problem for problem in problems if problem[1]), None):
                outcomes.append(_print_failure(Outcome(problem[0], "failed", reason=problem[1])))
        if any(outcome.state == "failed" for outcome in outcomes):
            if step.stage not in [outcome.stage for outcome in outcomes]:
                outcomes.append(Outcome(step.stage, "not run"))
            continue
        start = time.monotonic()
        with stage_of_log(step.stage):
            outcome = _run_step(step, budget, end_work)
        outcome.seconds = time.monotonic() - start
        outcomes.append(outcome)
    order = [step.stage for step in steps]
    return sorted(outcomes, key=lambda outcome: order.index(outcome.stage))


def _run_step(step: Step, budget: TimeBudget, end_work: Callable[[], None]) -> Outcome:
    is_index = step.stage == "index"
    if budget.is_over and not is_index:
        return Outcome(step.stage, "not run", reason="the time budget is over")
    try:
        with ExitStack() as stack:
            if not is_index:  # which takes over what was embedded in time
                stack.enter_context(budget.watched())
            if reason := step.skipped():
                print(f"{step.stage}: skipped: {reason}", flush=True)
                return Outcome(step.stage, "skipped", reason=reason)
            report = step.work()
    except KeyboardInterrupt:
        if is_interrupted() or not budget.has_raised:
            raise
        return _end(step, budget, end_work)
    except Exception as error:
        if is_interrupted():
            raise
        if budget.has_raised and not is_index:  # it follows from `TimeIsUp`
            return _end(step, budget, end_work)
        if budget.is_over and isinstance(error, (ValueError, FileNotFoundError)):
            return Outcome(step.stage, "not run", reason=str(error))  # nothing is embedded yet
        if not isinstance(error, EXPECTED):
            traceback.print_exc()
        return _print_failure(Outcome(step.stage, "failed", reason=explained(error)))
    print(report, flush=True)
    return Outcome(step.stage, "done", report=report, pending=report.unprocessed)


def _end(step: Step, budget: TimeBudget, end_work: Callable[[], None]) -> Outcome:
    end_work()
    reason = f"ended by the time budget of {budget.minutes:g} minutes; what it finished is kept"
    print(f"{step.stage}: {reason}", flush=True)
    return Outcome(step.stage, "ended", reason=reason)


def _print_failure(outcome: Outcome) -> Outcome:
    print(f"{outcome.stage}: failed: {outcome.reason}", flush=True)
    return outcome


def explained(error: Exception) -> str:
    """An error in one sentence, with its type where the message alone says little."""
    return (
        str(error)
        if isinstance(error, (ValueError, RuntimeError))
        else (f"{type(error).__name__}: {error}")
    )
