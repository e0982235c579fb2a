"""`ampere status`: the rows of each stage by state, and the failures table."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.settings import Settings
from ampere.config.summarize import SummaryMethod
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.features import FeaturesStage, stored_tower
from ampere.pipeline.runner.stage import Stage
from ampere.pipeline.summarize.stage import SummarizeStage, stage_name
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import FAILURES, FEATURES, FRAMES, SAMPLES
from ampere.reports.text_table import new_table, render_table
from ampere.store.indexes import base_meta, base_name, serving
from ampere.store.models import model_folder
from ampere.store.settings import last_settings, settings_report
from ampere.store.workspace import Workspace

STATES = ("done", "pending", "failed", "stale")


def stages(workspace: Workspace, settings: Settings) -> dict[str, Callable[[], Stage]]:
    """The row-by-row stages by name: decode, summarize, features of each frozen tower, embed.

    Transcribe is among them if it ran. Each stage has the settings of its last run, so that rows
    made with other flags than the preset's are not reported as stale. A stage whose settings are no
    longer valid, for example because its model's folder was deleted, raises when it is called.
    """

    def decode() -> Stage:
        return DecodeStage(workspace, last_settings(workspace, "decode", settings.decode))

    def summarize(name: str) -> Stage:
        return SummarizeStage(workspace, last_settings(workspace, name, settings.summarize))

    def features(tower: str) -> Stage:
        # What the stage counts depends neither on where actors load the tower nor on its pixels.
        return FeaturesStage(workspace, tower, "", 0, settings.embed)

    def embed(name: str) -> Stage:
        return EmbedStage(workspace, dataclasses.replace(settings.embed, model=name))

    def transcribe() -> Stage:
        return TranscribeStage(
            workspace, last_settings(workspace, "transcribe", settings.transcribe)
        )

    by_name: dict[str, Callable[[], Stage]] = {"decode": decode}
    if workspace.read_report(settings_report("transcribe")) is not None:
        by_name["transcribe"] = transcribe
    for method in get_args(SummaryMethod):
        name = stage_name(method)
        if (
            method == settings.summarize.method
            or workspace.read_report(settings_report(name)) is not None
        ):
            by_name[name] = partial(summarize, name)
    if workspace.table(FRAMES).count():
        towers = frozen_towers(workspace, bf16=settings.embed.bf16)
        by_name |= {f"features-{tower}": partial(features, tower) for tower in towers}
        by_name |= {f"embed-{name}": partial(embed, name) for name in workspace.names("models")}
    return by_name


def frozen_towers(workspace: Workspace, *, bf16: bool) -> list[str]:
    """Names of the towers that have stored features, or of which a model needs them.

    Args:
        bf16: dtype of the features of models that have none yet.
    """
    stored = set(workspace.table(FEATURES).read(["tower"])["tower"].unique().to_pylist())
    needed = set()
    for model in workspace.names("models"):
        with suppress(FileNotFoundError, ValueError):  # the line of embed says what is wrong
            folder = model_folder(workspace, model)
            names = {dtype: stored_tower(folder, bf16=dtype) for dtype in (False, True)}
            if names[bf16] and not stored.intersection(names.values()):
                needed.add(names[bf16])
    return sorted(stored | needed)


def format_status(workspace: Workspace, settings: Settings) -> str:
    """The rows of each stage by state, failures by error, and the models and indexes."""
    table = new_table("stage", right=STATES)
    samples = workspace.table(SAMPLES).count()
    invalid = workspace.table(FAILURES).count(pc.field("stage") == "prepare")
    table.add_row("prepare", str(samples), "0", str(invalid), "0")
    problems = [format_errors(workspace, "prepare")]
    for name, stage in stages(workspace, settings).items():
        try:
            plan = stage().plan(workspace)
        except (FileNotFoundError, ValueError) as error:  # concerns this stage only
            table.add_row(name, "unknown")
            problems.append(f"{name}: state unknown: {error}")
            continue
        counts = plan.counts()
        table.add_row(name, *(str(counts[state]) for state in STATES))
        failed = plan.inputs["sample_id"].filter(plan.failed)
        problems.append(format_errors(workspace, name, failed))
    blocks = [
        f"workspace {workspace.uri}, preset {workspace.preset}",
        render_table(table),
        "\n".join(filter(None, problems)),
        "\n".join(
            [f"models:  {', '.join(workspace.names('models')) or 'none'}"]
            + [format_index(workspace, name) for name in workspace.names("indexes")]
        ),
    ]
    return "\n\n".join(filter(None, blocks))


def format_index(workspace: Workspace, name: str) -> str:
    """The base of an index that is served, and its rows by domain."""
    try:
        version = serving(workspace, name)
        meta = base_meta(workspace, name, version)
    except FileNotFoundError:
        return f"index {name}: no base is published; run `ampere index`"
    sizes = ", ".join(f"{part['rows']} {domain}" for domain, part in meta["domains"].items())
    return f"index {name} {base_name(version)}: {sizes}"


def format_errors(workspace: Workspace, stage: str, failed: pa.ChunkedArray | None = None) -> str:
    """The failed rows of a stage by error, the most frequent first; "" if none failed.

    Args:
        failed: ids of the rows to count, since the failures table also holds rows that are pending
            again; None counts all.
    """
    rows = workspace.table(FAILURES).read(["sample_id", "error_type"], pc.field("stage") == stage)
    if failed is not None:
        rows = rows.filter(pc.is_in(rows["sample_id"], value_set=failed.combine_chunks()))
    counts = Counter(rows["error_type"].to_pylist())
    if not counts:
        return ""
    most_frequent_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    errors = ", ".join(f"{count} {error}" for error, count in most_frequent_first)
    return f"{stage} failures: {errors} (see --failures)"


def format_failures(workspace: Workspace) -> str:
    """The failures table, one line per failed row."""
    failures = workspace.table(FAILURES).read()
    rows = failures.sort_by([("stage", "ascending"), ("sample_id", "ascending")]).to_pylist()
    if not rows:
        return "no failures"
    return "\n".join(
        f"{row['stage']}  {row['sample_id']}  {row['error_type']} (attempt {row['attempts']}): "
        f"{row['message']}"
        for row in rows
    )
