"""`reports/run.html`: one page on the last run, with the runs before it; `reports/run.json` too."""

import json
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from ampere.reports.text_table import new_table, render_table
from ampere.store.workspace import Workspace

PAGE_REPORT = "run.html"
RUN_REPORT = "run.json"
RUNS_FOLDER = "runs"
HISTORY = 30  # runs
ROW_COLUMNS = ("done", "before", "failed", "pending")


def write_run_page(workspace: Workspace, run: dict[str, Any]) -> str:
    """Store a run for the history and write its page; returns the page's path or URI.

    Args:
        workspace: of the run.
        run: JSON-like: started (ISO time), command, status, seconds, cost, samples, stages, totals,
            failures, recall, mR1, drift, left, as `ampere.workflows.run.summary` makes it.
    """
    text = json.dumps(run, indent=2, ensure_ascii=False)
    # A name without colons, which not every store takes.
    stamp = datetime.fromisoformat(run["started"]).strftime("%Y-%m-%dT%H%M%S.%fZ")
    workspace.write_report(f"{RUNS_FOLDER}/{stamp}.json", text)
    workspace.write_report(RUN_REPORT, text)
    runs = history(workspace)
    page = Environment(
        loader=PackageLoader("ampere.reports", "pages"), autoescape=select_autoescape()
    )
    page.filters |= {"duration": duration, "number": number}
    html = page.get_template("run.html").render(
        run=run,
        runs=runs,
        row_columns=ROW_COLUMNS,
        longest=max((other["seconds"] for other in runs), default=0) or 1,
    )
    return workspace.write_report(PAGE_REPORT, html)


def history(workspace: Workspace) -> list[dict[str, Any]]:
    """The last runs, the newest first; files that are no runs are left out."""
    names = [name for name in workspace.names(f"reports/{RUNS_FOLDER}") if name.endswith(".json")]
    runs = []
    for name in reversed(names[-HISTORY:]):
        try:
            run = json.loads(workspace.read_report(f"{RUNS_FOLDER}/{name}") or "")
            if run["seconds"] >= 0 and run["totals"] is not None:
                runs.append(run)
        except (ValueError, KeyError, TypeError):
            continue
    return runs


def stage_table(run: dict[str, Any]) -> str:
    """The stages of a run as a text table."""
    has_cost = any(stage["cost"] is not None for stage in run["stages"])
    right = (*ROW_COLUMNS, "seconds", *(["cost"] if has_cost else []))
    table = new_table("stage", "state", right=right)
    for stage in run["stages"]:
        rows = ["" if stage[name] is None else str(stage[name]) for name in ROW_COLUMNS]
        cost = [number(stage["cost"])] if has_cost else []
        table.add_row(stage["stage"], stage["state"], *rows, f"{stage['seconds']:.1f}", *cost)
    return render_table(table)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(12.3), duration(754), duration(7384)
    ('12.3 s', '12 min 34 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def number(value: float | None) -> str:
    """A number for people; nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
