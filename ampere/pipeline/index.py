"""The index stage: embeddings of one model into versions of a search index under indexes/MODEL.

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
    check_limits,
    measured_recall,
    write_base,
    write_delta,
    write_meta,
)
from ampere.retrieval.index_types import check_gpu
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
from ampere.store.texts import sample_texts, text_array
from ampere.store.workspace import Workspace

HOW = ("delta_share", "keep", "gpu")  # settings that leave what an index finds as it is


def build_index(workspace: Workspace, settings: IndexSettings) -> Report:
    """Bring the index of a model's present weights up to date with its embeddings, as a new version.

    Few changes since the last base become a delta beside it; many, or other settings, a new base. A version is
    published when it is whole, its files are what was written, and it finds what exact search finds.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model has no embeddings yet, or no index keeps to the settings' limits.
        RuntimeError: the version did not pass, the one before stays; another job is building this index; or no GPU is
            there for `gpu`.
    """
    if settings.gpu:
        check_gpu()
    start = time.monotonic()
    with workspace.lock(f"index-{settings.model}"), tempfile.TemporaryDirectory() as scratch:
        name = embedding_name(model_folder(workspace, settings.model))
        rows = index_rows(workspace, name, settings.split)
        if rows.num_rows == 0:
            raise ValueError(
                f"model {name} has no embeddings of split {settings.split}; run `ampere embed` first"
            )
        made_by = {
            field: value
            for field, value in dataclasses.asdict(settings).items()
            if field not in HOW
        }
        meta = {
            "model": name,
            "settings": made_by,
            "content": fingerprint(sorted(rows["fingerprint"].to_pylist())),
        }
        lacking = not_embedded(workspace, rows, settings)
        current = current_folder(workspace, settings.model)
        if current and is_current(current, settings, meta):
            return Report(
                "index", index_uri(workspace, settings.model), skipped=rows.num_rows, notes=lacking
            )
        base = reusable_base(current, meta) if current else None
        version = next_version(workspace, settings.model)
        notes = write_version(Path(scratch) / version, base, rows, settings, meta) + lacking
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
    """Write a version that passes the gate in a new folder: a delta if there is a base and little changed, or a base.

    Returns:
        What it is and what was measured, a line each.

    Raises:
        ValueError: no type of index keeps to the settings' limits.
        RuntimeError: it did not pass.
    """
    folder.mkdir()
    told = []
    changed, held = changed_rows(base, rows) if base else (rows.num_rows, 0)
    if base and settings.delta_share > 0 and changed <= settings.delta_share * held:
        write_delta(folder, base, rows, meta)
        (folder.parent / base.name).symlink_to(base)
        try:
            return [
                f"index: {changed} changes beside base {base.name}",
                pass_gate(folder, rows, settings),
            ]
        except RuntimeError as error:  # the next night's delta would fail like it
            told = [f"index: {error}. A base takes the place of this delta"]
            shutil.rmtree(folder)
            folder.mkdir()
    told += [f"index: {line}" for line in write_base(folder, rows, settings, meta)]
    return [*told, pass_gate(folder, rows, settings)]


def pass_gate(folder: Path, rows: pa.Table, settings: IndexSettings) -> str:
    """Load a version, ask it what exact search is asked, and note in its index.json what share it found.

    Raises:
        RuntimeError: the share is below the settings', it finds what is gone, or a delta is beyond the limits.
    """
    refused = f"version {folder.name} did not pass the gate and is not published"
    try:
        index = SearchIndex(folder)
        recalls = measured_recall(index, rows)
        check_limits(folder, rows, settings)
    except RuntimeError as error:
        raise RuntimeError(f"{refused}: {error}") from error
    if min(recalls.values()) < settings.target_recall:
        raise RuntimeError(
            f"{refused}: it finds {recalls} of what exact search finds; index.target_recall is {settings.target_recall}"
        )
    write_meta(folder, read_meta(folder) | {"gate": recalls})
    told = ", ".join(f"{domain} {recall:.4f}" for domain, recall in recalls.items())
    return f"index: loaded again, it finds of exact search's answers to other queries: {told}"


def roll_back(workspace: Workspace, model: str) -> str:
    """Make the version that served before the current one was built the current one; returns its name.

    Raises:
        FileNotFoundError: the model has no index, or none before.
        ValueError: the version before, or its base, is not what was written, or is of weights that are gone.
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
        try:
            meta = check_version(version_folder(workspace, model, before[-1]))
        except UNUSABLE as error:
            raise ValueError(
                f"version {before[-1]} of index {model} cannot serve ({error}); {current} stays. To go back beyond it, "
                f"remove indexes/{model}/{before[-1]} and roll back again"
            ) from error
        if meta["model"] != (name := embedding_name(model_folder(workspace, model))):
            raise ValueError(
                f"version {before[-1]} of index {model} holds vectors of {meta['model']}, and the model is {name} by "
                f"now, so nothing could search it; {current} stays. Put those weights back under models/{model} first"
            )
        set_current(workspace, model, before[-1])
    return before[-1]


def is_current(folder: Path, settings: IndexSettings, meta: dict[str, Any]) -> bool:
    """Whether a version was made from just these rows with these settings, and is whole."""
    try:
        found = check_version(folder)
    except UNUSABLE:
        return False
    merged = found["base"] is None or settings.delta_share > 0
    return merged and all(found.get(name) == meta[name] for name in meta)


def reusable_base(folder: Path, meta: dict[str, Any]) -> Path | None:
    """The base of a version, if it is whole and was made from the same model with the same settings."""
    try:
        base = base_folder(folder, read_meta(folder))
        found = check_files(base)
    except UNUSABLE:
        return None
    return base if all(found.get(name) == meta[name] for name in ("model", "settings")) else None


def of_split(split: str) -> str | None:
    """The condition on samples of a split; None: all are of it."""
    return None if split == "all" else f"split = '{split}'"


def not_embedded(workspace: Workspace, rows: pa.Table, settings: IndexSettings) -> list[str]:
    """What is to be said of samples that have frames and are not in an index of these rows; nothing if all are."""
    samples = workspace.table(SAMPLES).read(["sample_id"], of_split(settings.split))["sample_id"]
    framed = workspace.table(FRAMES).read(["sample_id"])["sample_id"]
    due = samples.filter(pc.is_in(samples, value_set=framed))
    lacking = len(due) - (pc.sum(pc.is_in(due, value_set=rows["sample_id"])).as_py() or 0)
    told = f"index: {lacking} of {len(due)} samples with frames have no current vector and cannot be found"
    return [f"{told}; run `ampere embed --embed.model {settings.model}`"] if lacking else []


def index_rows(workspace: Workspace, model: str, split: str) -> pa.Table:
    """The embeddings of a model with what a search answer shows of each sample."""
    wanted = ["sample_id", "product_id", "domain", "vector", "fingerprint"]
    embeddings = workspace.table(EMBEDDINGS).read(wanted, f"model = '{model}'").sort_by("sample_id")
    samples = workspace.table(SAMPLES).read(["sample_id", "media_uris"], of_split(split))
    at = pc.index_in(embeddings["sample_id"], value_set=samples["sample_id"].combine_chunks())
    embeddings, at = embeddings.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    texts = text_array(sample_texts(workspace, "llm"), embeddings["sample_id"].to_pylist())
    uris = [uris[0] for uris in samples["media_uris"].take(at).to_pylist()]
    # A row's own name: what made its vector, and what is shown of it.
    columns = (
        embeddings["sample_id"].to_pylist(),
        embeddings["fingerprint"].to_pylist(),
        texts.to_pylist(),
        uris,
    )
    names = [fingerprint(*row) for row in zip(*columns, strict=True)]
    return (
        embeddings.drop_columns("fingerprint")
        .append_column("text", texts)
        .append_column("media_uri", pa.array(uris, pa.string()))
        .append_column("fingerprint", pa.array(names, pa.string()))
    )
