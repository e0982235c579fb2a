"""What `ampere status` shows: each stage's rows by state, and the ledger of failures."""

import json

from ampere.config import Settings
from ampere.pipeline.decode import decode_stage
from ampere.pipeline.runner import Stage
from ampere.pipeline.summarize import summarize_stage
from ampere.records import FAILURES, FRAMES, SAMPLES
from ampere.retrieval.index import META_FILE
from ampere.workspace import Workspace


def stages(workspace: Workspace, settings: Settings) -> list[Stage]:
    """The row-by-row stages of a workspace: decode, summarize, and embed for every model it has."""
    found = [decode_stage(workspace, settings.decode), summarize_stage(workspace, settings.summarize)]
    if workspace.table(FRAMES).count() and workspace.names("models"):
        from ampere.pipeline.embed import embed_stage  # torch takes seconds to import

        for name in workspace.names("models"):
            found.append(embed_stage(workspace, type(settings.embed)(**vars(settings.embed) | {"model": name})))
    return found


def format_status(workspace: Workspace, settings: Settings) -> str:
    """A line a stage: rows done, pending, failed, stale; then the models and the indexes."""
    samples = workspace.table(SAMPLES).count()
    unread = workspace.table(FAILURES).count("stage = 'prepare'")
    head = f"{'stage':<24}{'done':>10}{'pending':>10}{'failed':>10}{'stale':>10}"
    lines = [f"workspace {workspace.uri}, preset {workspace.preset}", "", head]
    lines.append(f"{'prepare':<24}{samples:>10}{0:>10}{unread:>10}{0:>10}")
    for stage in stages(workspace, settings):
        counts = stage.plan(workspace).counts()
        lines.append(f"{stage.name:<24}" + "".join(f"{counts[k]:>10}" for k in ("done", "pending", "failed", "stale")))
    lines += ["", f"models:  {', '.join(workspace.names('models')) or 'none'}"]
    for name in workspace.names("indexes"):
        meta = json.loads((workspace.fetch(f"indexes/{name}") / META_FILE).read_text(encoding="utf-8"))
        sizes = ", ".join(f"{count} {domain}" for domain, count in meta["domains"].items())
        lines.append(f"index {name}: {sizes}, of model {meta['model']}")
    return "\n".join(lines)


def format_failures(workspace: Workspace) -> str:
    """The ledger, a line a failed row."""
    rows = workspace.table(FAILURES).read().sort_by([("stage", "ascending"), ("sample_id", "ascending")]).to_pylist()
    if not rows:
        return "no failures"
    return "\n".join(
        f"{row['stage']}  {row['sample_id']}  {row['error_type']} (attempt {row['attempts']}): {row['message']}"
        for row in rows
    )
