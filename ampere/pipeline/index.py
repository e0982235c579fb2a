"""The index stage: build versions of a model's search index under indexes/MODEL.

indexes/ampere/current.json   {"version": "v000002"}
indexes/ampere/v000001/       a base
indexes/ampere/v000002/       a delta to it
"""

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.records import EMBEDDINGS, FRAMES, SAMPLES
from ampere.retrieval.index import (
    META_FILE,
    SearchIndex,
    base_folder,
    check_files,
    check_version,
    read_meta,
)
from ampere.retrieval.index_build import (
    changed_rows,
    measured_recall,
    violations,
    write_base,
    write_delta,
    write_meta,
)
from ampere.retrieval.index_types import check_gpu, set_blas_threshold
from ampere.store.indexes import (
    UNUSABLE,
    current_folder,
    current_version,
    index_uri,
    next_version,
    remove_old,
    served_before,
    set_current,
    version_folder,
    versions,
)
from ampere.store.models import model_folder
from ampere.store.texts import sample_texts, summary_models, text_array
from ampere.store.workspace import Workspace

RUNTIME_ONLY_FIELDS = ("delta_share", "keep", "gpu")  # settings that change no search result


def build_index(workspace: Workspace, settings: IndexSettings) -> Report:
    """Bring the index of a model's current weights up to date, as a new version.

    Few changes since the last base become a delta to it; many, or other settings, a new base. A
    version is published after it was loaded again with its checksums and passed the recall gate.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model has no embeddings yet, or no index meets the settings' limits.
        RuntimeError: the version failed the gate (the previous one stays current), another job is
            building this index, or `gpu` is set and there is no GPU.
    """
    set_blas_threshold()
    if settings.gpu:
        check_gpu()
    start = time.monotonic()
    with workspace.lock(f"index-{settings.model}"), tempfile.TemporaryDirectory() as scratch:
        name = embedding_name(model_folder(workspace, settings.model))
        rows = index_rows(workspace, name, settings.split)
        if rows.num_rows == 0:
            raise ValueError(
                f"model {name} has no embeddings of split {settings.split}. "
                "Run `ampere embed` first"
            )
        made_by = {
            field: value
            for field, value in dataclasses.asdict(settings).items()
            if field not in RUNTIME_ONLY_FIELDS
        }
        meta = {
            "model": name,
            "settings": made_by,
            "content": fingerprint(sorted(rows["fingerprint"].to_pylist())),
        }
        missing = missing_embeddings_note(workspace, rows, settings)
        current = current_folder(workspace, settings.model)
        if current and is_current(current, settings, meta):
            return Report(
                "index", index_uri(workspace, settings.model), skipped=rows.num_rows, notes=missing
            )
        base = reusable_base(current, meta) if current else None
        version = next_version(workspace, settings.model)
        notes = write_version(Path(scratch) / version, base, rows, settings, meta) + missing
        before = current.name if current else None
        write_meta(Path(scratch) / version, read_meta(Path(scratch) / version) | {"before": before})
        where = workspace.publish(
            Path(scratch) / version, f"indexes/{settings.model}/{version}", last=META_FILE
        )
        set_current(workspace, settings.model, version)
        remove_old(workspace, settings.model, settings.keep, before=before or version)
    return Report("index", where, done=rows.num_rows, seconds=time.monotonic() - start, notes=notes)


def write_version(
    folder: Path, base: Path | None, rows: pa.Table, settings: IndexSettings, meta: dict[str, Any]
) -> list[str]:
    """Write a version in a new folder and pass it through the gate.

    It is a delta if there is a base and few rows changed, else a base. A base also replaces a delta
    that fails the gate.

    Returns:
        Lines for the report: what was built, and its measurements.

    Raises:
        ValueError: no index type meets the settings' limits.
        RuntimeError: the base failed the gate.
    """
    folder.mkdir()
    notes = []
    changed, held = changed_rows(base, rows) if base else (rows.num_rows, 0)
    if base and settings.delta_share > 0 and changed <= settings.delta_share * held:
        write_delta(folder, base, rows, meta)
        (folder.parent / base.name).symlink_to(base)
        try:
            return [
                f"index: delta with {changed} changes to base {base.name}",
                pass_gate(folder, rows, settings),
            ]
        except RuntimeError as error:  # the next delta would fail for the same reason
            notes = [f"index: {error}. Building a new base instead"]
            shutil.rmtree(folder)
            folder.mkdir()
    notes += [f"index: {line}" for line in write_base(folder, rows, settings, meta)]
    return [*notes, pass_gate(folder, rows, settings)]


def pass_gate(folder: Path, rows: pa.Table, settings: IndexSettings) -> str:
    """Load a version, measure it on held-out queries, and record its recall in index.json.

    Returns:
        A line with the recall of each domain.

    Raises:
        RuntimeError: the recall is below the target, the index returns deleted or stale rows, or a
            delta exceeds the limits.
    """
    failed = f"version {folder.name} failed the gate and is not published"
    try:
        index = SearchIndex(folder)
        recalls = measured_recall(index, rows)
    except RuntimeError as error:
        raise RuntimeError(f"{failed}: {error}") from error
    shown = ", ".join(f"{domain} {recall:.4f}" for domain, recall in recalls.items())
    problems = violations(index, rows, settings)
    if min(recalls.values()) < settings.target_recall:
        problems.append(
            f"recall@10 vs exact search is {shown}; "
            f"expected at least index.target_recall={settings.target_recall}"
        )
    if problems:
        raise RuntimeError(f"{failed}: {'; '.join(problems)}")
    write_meta(folder, read_meta(folder) | {"gate": recalls})
    return f"index: validation recall@10 vs exact search: {shown}"


def roll_back(workspace: Workspace, model: str) -> str:
    """Make the version before the current one current again; return its name.

    That is the version that served when the current one was built.

    Raises:
        FileNotFoundError: the model has no index, or no earlier version.
        ValueError: the earlier version or its base is damaged, or is of other weights.
        RuntimeError: a job is building this index.
    """
    with workspace.lock(f"index-{model}"):
        current = current_version(workspace, model)
        last = served_before(workspace, model, current)
        before = [
            version
            for version in versions(workspace, model)
            if version < current and version <= last
        ]
        if not before:
            raise FileNotFoundError(
                f"{workspace.uri} has no version of index {model} before {current}"
            )
        refused = f"cannot roll back index {model} to {before[-1]}"
        try:
            meta = check_version(version_folder(workspace, model, before[-1]))
        except UNUSABLE as error:
            raise ValueError(
                f"{refused}: {error}; {current} stays current. To roll back to an earlier version, "
                f"remove indexes/{model}/{before[-1]} and try again"
            ) from error
        if meta["model"] != (name := embedding_name(model_folder(workspace, model))):
            raise ValueError(
                f"{refused}: it holds vectors of {meta['model']}, but the model's weights are "
                f"{name}; {current} stays current. Restore those weights in models/{model} first"
            )
        set_current(workspace, model, before[-1])
    return before[-1]


def is_current(folder: Path, settings: IndexSettings, meta: dict[str, Any]) -> bool:
    """Return whether a version is intact and was made from these rows with these settings."""
    try:
        stored = check_version(folder)
    except UNUSABLE:
        return False
    merged = stored["base"] is None or settings.delta_share > 0
    return merged and all(stored.get(name) == meta[name] for name in meta)


def reusable_base(folder: Path, meta: dict[str, Any]) -> Path | None:
    """Return the base of a version if it is intact and of the same model and settings."""
    try:
        base = base_folder(folder, read_meta(folder))
        stored = check_files(base)
    except UNUSABLE:
        return None
    return base if all(stored.get(name) == meta[name] for name in ("model", "settings")) else None


def split_filter(split: str) -> pc.Expression | None:
    """Return the filter on the samples of a split; None: all samples."""
    return None if split == "all" else pc.field("split") == split


def missing_embeddings_note(
    workspace: Workspace, rows: pa.Table, settings: IndexSettings
) -> list[str]:
    """Return a line on samples with frames that the index does not hold; empty if it holds all."""
    in_split = split_filter(settings.split)
    samples = workspace.table(SAMPLES).read(["sample_id"], in_split)["sample_id"]
    framed = workspace.table(FRAMES).read(["sample_id"])["sample_id"]
    expected = samples.filter(pc.is_in(samples, value_set=framed))
    indexed = pc.sum(pc.is_in(expected, value_set=rows["sample_id"])).as_py() or 0
    missing = len(expected) - indexed
    if not missing:
        return []
    return [
        f"index: {missing} of {len(expected)} samples with frames have no embedding from the "
        f"current weights and cannot be found; run `ampere embed --embed.model {settings.model}`"
    ]


def index_rows(workspace: Workspace, model: str, split: str) -> pa.Table:
    """Return the embeddings of a model with the columns that a hit shows of each sample."""
    columns = ["sample_id", "product_id", "domain", "vector", "fingerprint"]
    embeddings = (
        workspace.table(EMBEDDINGS).read(columns, pc.field("model") == model).sort_by("sample_id")
    )
    samples = workspace.table(SAMPLES).read(["sample_id", "media_uris"], split_filter(split))
    at = pc.index_in(embeddings["sample_id"], value_set=samples["sample_id"].combine_chunks())
    embeddings, at = embeddings.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    # Hits show one text, whatever the model reads, so the first language model's will do.
    shown = next(iter(summary_models(workspace, "llm")), "")
    texts = text_array(sample_texts(workspace, "llm", shown), embeddings["sample_id"].to_pylist())
    uris = [uris[0] for uris in samples["media_uris"].take(at).to_pylist()]
    # A row counts as updated if its vector or a column that a hit shows changed.
    content = (
        embeddings["sample_id"].to_pylist(),
        embeddings["fingerprint"].to_pylist(),
        texts.to_pylist(),
        uris,
    )
    fingerprints = [fingerprint(*row) for row in zip(*content, strict=True)]
    return (
        embeddings.drop_columns("fingerprint")
        .append_column("text", texts)
        .append_column("media_uri", pa.array(uris, pa.string()))
        .append_column("fingerprint", pa.array(fingerprints, pa.string()))
    )
