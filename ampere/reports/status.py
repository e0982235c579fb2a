"""What `ampere status` shows: each stage's rows by state, and the ledger of failures."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.settings import Settings
from ampere.config.summarize import SummaryMethod
from ampere.pipeline.decode import decode_stage
from ampere.pipeline.runner.stage import Stage
from ampere.pipeline.summarize.stage import stage_name, summarize_stage
from ampere.records import FAILURES, FRAMES, SAMPLES
from ampere.store.indexes import current_meta, current_version
from ampere.store.settings import last_settings, settings_report
from ampere.store.table import sql_in
from ampere.store.workspace import Workspace


def stages(workspace: Workspace, settings: Settings) -> dict[str, Callable[[], Stage]]:
    """The row-by-row stages of a workspace by name: decode, summarize, and embed for every model it has.

    Each with the settings of its last run, so that what ran with other flags than the preset's does not look stale. A
    stage whose settings no longer hold, for example since its model's folder is gone, raises when it is called.
    """

    def decode() -> Stage:
        return decode_stage(workspace, last_settings(workspace, "decode", settings.decode))

    def summarize(name: str) -> Stage:
        return summarize_stage(workspace, last_settings(workspace, name, settings.summarize))

    def embed(name: str) -> Stage:
        from ampere.pipeline.embed import embed_stage  # torch takes seconds to import

        return embed_stage(workspace, dataclasses.replace(settings.embed, model=name))

    found: dict[str, Callable[[], Stage]] = {"decode": decode}
    for method in get_args(SummaryMethod):
        name = stage_name(method)
        if (
            method == settings.summarize.method
            or workspace.read_report(settings_report(name)) is not None
        ):
            found[name] = partial(summarize, name)
    if workspace.table(FRAMES).count():
        found |= {f"embed-{name}": partial(embed, name) for name in workspace.names("models")}
    return found


def format_status(workspace: Workspace, settings: Settings) -> str:
    """A line a stage: rows done, pending, failed, stale; what failed, by error; then the models and the indexes."""
    samples = workspace.table(SAMPLES).count()
    unread = workspace.table(FAILURES).count("stage = 'prepare'")
    head = f"{'stage':<24}{'done':>10}{'pending':>10}{'failed':>10}{'stale':>10}"
    lines = [f"workspace {workspace.uri}, preset {workspace.preset}", "", head]
    lines.append(f"{'prepare':<24}{samples:>10}{0:>10}{unread:>10}{0:>10}")
    errors = [format_errors(workspace, "prepare")]
    for name, stage in stages(workspace, settings).items():
        try:
            plan = stage().plan(workspace)
        except (
            FileNotFoundError,
            ValueError,
        ) as error:  # costs its own line: the others are as they were
            lines.append(f"{name:<24}unknown: {error}")
            continue
        counts = plan.counts()
        lines.append(
            f"{name:<24}"
            + "".join(f"{counts[k]:>10}" for k in ("done", "pending", "failed", "stale"))
        )
        errors.append(format_errors(workspace, name, plan.wanted["sample_id"].filter(plan.failed)))
    if any(errors):
        lines += ["", *filter(None, errors)]
    lines += ["", f"models:  {', '.join(workspace.names('models')) or 'none'}"]
    for name in workspace.names("indexes"):
        try:
            version, meta = current_version(workspace, name), current_meta(workspace, name)
        except FileNotFoundError:
            lines.append(f"index {name}: none is published; run `ampere index` again")
            continue
        sizes = ", ".join(f"{found['rows']} {domain}" for domain, found in meta["domains"].items())
        lines.append(f"index {name} {version}: {sizes}, of model {meta['model']}")
    return "\n".join(lines)


def format_errors(workspace: Workspace, stage: str, failed: pa.ChunkedArray | None = None) -> str:
    """How many rows of a stage failed by which error, the most frequent first; empty if none did.

    Args:
        failed: ids of the rows that count, for the ledger also keeps those that are due again; None: all.
    """
    rows = workspace.table(FAILURES).read(["sample_id", "error_type"], sql_in("stage", [stage]))
    if failed is not None:
        rows = rows.filter(pc.is_in(rows["sample_id"], value_set=failed.combine_chunks()))
    counts = Counter(rows["error_type"].to_pylist())
    if not counts:
        return ""
    told = [
        f"{count} {error}"
        for error, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"{stage} failures: {', '.join(told)} (see --failures)"


def format_failures(workspace: Workspace) -> str:
    """The ledger, a line a failed row."""
    rows = (
        workspace.table(FAILURES)
        .read()
        .sort_by([("stage", "ascending"), ("sample_id", "ascending")])
        .to_pylist()
    )
    if not rows:
        return "no failures"
    return "\n".join(
        f"{row['stage']}  {row['sample_id']}  {row['error_type']} (attempt {row['attempts']}): {row['message']}"
        for row in rows
    )
