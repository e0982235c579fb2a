"""The index stage: build the FAISS base of a model's search table, check it, and publish it.

Searchers follow the table by themselves; a base makes them fast. Few changes since the last base
are searched exactly and need no new one. For Milvus see `ampere.pipeline.index_milvus`.
"""

import dataclasses
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import pyarrow.compute as pc

from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.runner.report import Report
from ampere.records import FRAMES, SAMPLES
from ampere.retrieval.base import META_FILE, Base, check_files, read_meta, write_base, write_meta
from ampere.retrieval.gate import check_snapshot, searched_rows, shown
from ampere.retrieval.index_types import check_gpu, set_blas_threshold
from ampere.retrieval.searcher import set_serving
from ampere.retrieval.snapshot import Snapshot
from ampere.store.embeddings import embeddings_spec, index_columns, maintain
from ampere.store.indexes import (
    FOLDER,
    UNUSABLE,
    base_folder,
    base_name,
    base_tag,
    open_searcher,
    remove_old,
    remove_superseded,
    search_table,
    serving,
)
from ampere.store.locks import check_locks
from ampere.store.models import model_folder
from ampere.store.serving import publish_weights, remove_weights, served_name
from ampere.store.table import Table
from ampere.store.workspace import Workspace

# Settings that change no search result.
RUNTIME_ONLY_FIELDS = ("engine", "uri", "delta_share", "keep", "gpu")


def build_index(workspace: Workspace, settings: IndexSettings) -> Report:
    """Give the search table of a model's current weights a base, if it needs a new one.

    It does if there is none, if the settings changed, if many rows changed since the last one, or
    if that one no longer passes the gate. A base is published after it was loaded again with its
    checksums and passed the recall gate.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model has no embeddings yet, or no index meets the settings' limits.
        RuntimeError: the base failed the gate (the previous one stays), another job is building
            this index, or `gpu` is set and there is no GPU.
    """
    set_blas_threshold()
    if settings.gpu:
        check_gpu()
    start = time.monotonic()
    with workspace.lock(f"index-{settings.model}"):
        name = embedding_name(model_folder(workspace, settings.model))
        table = workspace.table(embeddings_spec(name))
        if table.dataset() is None or not table.count(split_filter(settings.split)):
            raise ValueError(
                f"model {name} has no embeddings of split {settings.split}. "
                "Run `ampere embed` first"
            )
        index_columns(table)
        maintain(table)
        notes = [missing_embeddings_note(workspace, table, settings)]
        served = served_name(workspace, settings.model)
        if settings.engine == "milvus":
            from ampere.pipeline.index_milvus import update_collection

            report = update_collection(workspace, name, table, settings)
            publish_weights(workspace, settings.model)
            notes.append(_remove_earlier(workspace, name, served, settings))
            report.notes += filter(None, notes)
            return report
        before, reason = None, "the first one of these weights"
        try:
            before = serving(workspace, name)
            report = current_report(workspace, name, settings, before)
            publish_weights(workspace, settings.model)
            report.notes += filter(None, notes)
            return report
        except FileNotFoundError:
            pass
        except NewBaseNeeded as needed:
            reason = str(needed)
        version, rows, lines = new_base(workspace, name, table, settings, before)
        check_locks()
        set_serving(search_table(workspace, name), version)
        publish_weights(workspace, settings.model)
        remove_old(workspace, name, settings.keep, before)
        notes = [f"index: new base {base_name(version)} ({reason})", *lines, *notes]
        notes.append(_remove_earlier(workspace, name, served, settings))
    return Report(
        "index",
        f"{workspace.uri}/{FOLDER}/{name}/{base_name(version)}",
        done=rows,
        seconds=time.monotonic() - start,
        notes=[note for note in notes if note],
    )


def _remove_earlier(
    workspace: Workspace, name: str, served: str | None, settings: IndexSettings
) -> str:
    """Delete what is left of earlier weights; returns a line for the report, or nothing.

    Args:
        workspace: with the tables.
        name: of the model with its weights, which are published.
        served: name with the weights that were served before.
        settings: of the run.
    """
    removed = remove_superseded(workspace, name, served)
    for weights in removed:
        remove_weights(workspace, weights)
    if not removed:
        return ""
    if settings.engine == "milvus":
        from ampere.pipeline.index_milvus import drop_collections

        drop_collections(settings, removed)
    return f"index: removed the tables of earlier weights {', '.join(removed)}"


class NewBaseNeeded(Exception):
    """Why the base that is served has to be replaced."""


def current_report(
    workspace: Workspace, name: str, settings: IndexSettings, version: int
) -> Report:
    """The report of a run that keeps the base that is served.

    Raises:
        NewBaseNeeded: it cannot be kept.
    """
    try:
        stored = check_files(base_folder(workspace, name, version))
    except UNUSABLE as error:
        raise NewBaseNeeded(f"{base_name(version)} is unusable ({error})") from error
    if stored["settings"] != made_by(settings):
        raise NewBaseNeeded(f"{base_name(version)} was built with other settings")
    snapshot = open_searcher(workspace, name).snapshot
    changes = snapshot.changes()
    held = sum(domain["rows"] for domain in stored["domains"].values())
    if changes > settings.delta_share * held:
        raise NewBaseNeeded(f"{changes} changes since {base_name(version)} of {held} rows")
    notes = []
    if changes:
        try:
            recalls = check_snapshot(snapshot, searched_rows(snapshot), settings)
        except RuntimeError as error:
            raise NewBaseNeeded(f"{base_name(version)} with {changes} changes: {error}") from error
        notes = [
            f"index: {changes} changes since base {base_name(version)} are searched exactly",
            f"index: validation recall@10 vs exact search: {shown(recalls)}",
        ]
    where = f"{workspace.uri}/{FOLDER}/{name}/{base_name(version)}"
    return Report("index", where, skipped=sum(map(snapshot.count, snapshot.domains)), notes=notes)


def new_base(
    workspace: Workspace,
    name: str,
    table: Table,
    settings: IndexSettings,
    before: int | None,
) -> tuple[int, int, list[str]]:
    """Build a base of the newest version of the table, and pass it through the gate.

    Returns:
        Version of the table, number of its rows, and lines for the report.

    Raises:
        ValueError: no index type meets the settings' limits.
        RuntimeError: the base failed the gate.
    """
    dataset = marked_version(table)
    version = dataset.version
    meta = {
        "model": name,
        "settings": made_by(settings),
        "table_version": version,
        "before": before,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / base_name(version)
        folder.mkdir()
        rows = dataset.to_table(
            columns=["sample_id", "domain", "vector", "fingerprint"],
            filter=split_filter(settings.split),
            with_row_id=True,
        ).sort_by("sample_id")
        lines = [f"index: {line}" for line in write_base(folder, rows, settings, meta)]
        snapshot = Snapshot.of_base(Base(folder), dataset)
        try:
            recalls = check_snapshot(snapshot, rows, settings)
        except RuntimeError as error:
            raise RuntimeError(
                f"base {base_name(version)} failed the gate and is not published: {error}"
            ) from error
        write_meta(folder, read_meta(folder) | {"gate": recalls})
        dataset.tags.create(base_tag(version), version)
        workspace.publish(folder, f"{FOLDER}/{name}/{base_name(version)}", last=META_FILE)
    lines.append(f"index: validation recall@10 vs exact search: {shown(recalls)}")
    return version, rows.num_rows, lines


def marked_version(table: Table) -> lance.LanceDataset:
    """The table at a version of its own, so that two bases never have the same version."""
    dataset = table.dataset()
    assert dataset is not None, "the caller found rows"
    dataset.update_config({"ampere.base": datetime.now(UTC).isoformat()})
    dataset = table.dataset()
    assert dataset is not None
    return dataset


def made_by(settings: IndexSettings) -> dict[str, Any]:
    """The settings that change search results."""
    return {
        field: value
        for field, value in dataclasses.asdict(settings).items()
        if field not in RUNTIME_ONLY_FIELDS
    }


def split_filter(split: str) -> pc.Expression | None:
    """The condition on the samples of a split; None: all samples."""
    return None if split == "all" else pc.field("split") == split


def missing_embeddings_note(workspace: Workspace, table: Table, settings: IndexSettings) -> str:
    """A line on samples with frames and without an embedding; empty if there are none."""
    samples = workspace.table(SAMPLES).read(["sample_id"], split_filter(settings.split))
    frames = workspace.table(FRAMES).read(["sample_id"])["sample_id"].combine_chunks()
    expected = samples["sample_id"].filter(pc.is_in(samples["sample_id"], value_set=frames))
    embedded = table.read(["sample_id"])["sample_id"].combine_chunks()
    missing = pc.sum(pc.invert(pc.is_in(expected, value_set=embedded))).as_py() or 0
    if not missing:
        return ""
    return (
        f"index: {missing} of {len(expected)} samples with frames have no embedding from the "
        f"current weights and cannot be found; run `ampere embed --embed.model {settings.model}`"
    )
