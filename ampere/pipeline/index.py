"""The index stage: embeddings of one model into versions of a search index under indexes/MODEL.

indexes/ampere/current.json   {"version": "v000002"}
indexes/ampere/v000001/       a base
indexes/ampere/v000002/       a delta to it
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import IndexSettings
from ampere.models.embedder import embedding_name
from ampere.pipeline.embed import model_folder
from ampere.pipeline.plan import fingerprint
from ampere.pipeline.report import Report
from ampere.pipeline.texts import sample_texts, text_array
from ampere.records import EMBEDDINGS, SAMPLES
from ampere.retrieval.index import META_FILE, SearchIndex, check_files
from ampere.retrieval.index_build import changed_rows, measured_recall, write_base, write_delta
from ampere.workspace import Workspace

CURRENT_FILE = "current.json"
HOW = ("delta_share", "keep")  # settings that leave what an index finds as it is


def build_index(workspace: Workspace, settings: IndexSettings) -> Report:
    """Bring the index of a model's present weights up to date with its embeddings, as a new version.

    Few changes since the last base become a delta beside it; many, or other settings, a new base. A version is
    published when it is whole, its files are what was written, and it finds what exact search finds.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model has no embeddings yet, or no index keeps to the settings' limits.
        RuntimeError: the version did not pass; the one before stays.
    """
    start = time.monotonic()
    name = embedding_name(model_folder(workspace, settings.model))
    rows = index_rows(workspace, name, settings.split)
    if rows.num_rows == 0:
        raise ValueError(f"model {name} has no embeddings of split {settings.split}; run `ampere embed` first")
    made_by = {field: value for field, value in dataclasses.asdict(settings).items() if field not in HOW}
    meta = {"model": name, "settings": made_by, "content": fingerprint(sorted(rows["fingerprint"].to_pylist()))}
    with workspace.lock(f"index-{settings.model}"), tempfile.TemporaryDirectory() as scratch:
        if is_current(workspace, settings, meta):
            return Report("index", index_uri(workspace, settings.model), skipped=rows.num_rows)
        base = reusable_base(workspace, settings.model, meta)
        changed, held = changed_rows(base, rows) if base else (rows.num_rows, 0)
        version = next_version(workspace, settings.model)
        folder = Path(scratch) / version
        folder.mkdir()
        if base and changed <= settings.delta_share * held:
            write_delta(folder, base, rows, meta)
            (Path(scratch) / base.name).symlink_to(base)
            notes = [f"index: {changed} changes beside base {base.name}"]
        else:
            notes = [f"index: {line}" for line in write_base(folder, rows, settings, meta)]
        recalls = measured_recall(SearchIndex(folder), rows)
        if min(recalls.values()) < settings.target_recall:
            raise RuntimeError(
                f"version {version} finds {recalls} of what exact search finds; index.target_recall is "
                f"{settings.target_recall}. It is not published; the version before stays"
            )
        where = workspace.publish(folder, f"indexes/{settings.model}/{version}")
        set_current(workspace, settings.model, version)
        remove_old(workspace, settings.model, settings.keep)
    return Report("index", where, done=rows.num_rows, seconds=time.monotonic() - start, notes=notes)


def roll_back(workspace: Workspace, model: str) -> str:
    """Make the version before the current one the current one; returns its name.

    Raises:
        FileNotFoundError: the model has no index, or none before.
    """
    current = current_version(workspace, model)
    before = [version for version in versions(workspace, model) if version < current]
    if not before:
        raise FileNotFoundError(f"{workspace.uri} has no version of index {model} before {current}")
    set_current(workspace, model, before[-1])
    return before[-1]


def open_index(workspace: Workspace, model: str) -> SearchIndex:
    """The current version of a model's index, in memory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is not what was written.
    """
    return SearchIndex(version_folder(workspace, model, current_version(workspace, model)))


def version_folder(workspace: Workspace, model: str, version: str) -> Path:
    """Local folder of a version, with its base beside it."""
    folder = workspace.fetch(f"indexes/{model}/{version}")
    base = read_meta(folder)["base"]
    beside = folder.parent / base if base else folder
    if not beside.exists():
        beside.symlink_to(workspace.fetch(f"indexes/{model}/{base}"))
    return folder


def versions(workspace: Workspace, model: str) -> list[str]:
    """Versions of a model's index, oldest first."""
    return [name for name in workspace.names(f"indexes/{model}") if name != CURRENT_FILE]


def current_version(workspace: Workspace, model: str) -> str:
    found = workspace.read_text(f"indexes/{model}/{CURRENT_FILE}")
    if found is None:
        raise FileNotFoundError(f"{workspace.uri} has no index of model {model!r}; run `ampere index` first")
    return json.loads(found)["version"]


def set_current(workspace: Workspace, model: str, version: str) -> None:
    workspace.write_text(f"indexes/{model}/{CURRENT_FILE}", json.dumps({"version": version}))


def next_version(workspace: Workspace, model: str) -> str:
    found = versions(workspace, model)
    return f"v{int(found[-1][1:]) + 1 if found else 1:06}"


def is_current(workspace: Workspace, settings: IndexSettings, meta: dict[str, Any]) -> bool:
    """Whether the current version was made from just these rows with these settings."""
    if not versions(workspace, settings.model):
        return False
    folder = version_folder(workspace, settings.model, current_version(workspace, settings.model))
    found = read_meta(folder)
    if not is_whole(folder) or (found["base"] and not is_whole(folder.parent / found["base"])):
        return False
    merged = found["base"] is None or settings.delta_share > 0
    return merged and all(found[name] == meta[name] for name in meta)


def reusable_base(workspace: Workspace, model: str, meta: dict[str, Any]) -> Path | None:
    """The base of the current version, if it was made from the same model with the same settings."""
    if not versions(workspace, model):
        return None
    folder = version_folder(workspace, model, current_version(workspace, model))
    base = read_meta(folder)["base"]
    folder = folder.parent / base if base else folder
    found = read_meta(folder)
    same = all(found[name] == meta[name] for name in ("model", "settings"))
    return folder if same and is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether a version's files are those that were written; a spoilt one is neither kept up nor built upon."""
    try:
        check_files(folder)
    except (ValueError, OSError):
        return False
    return True


def read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / META_FILE).read_text(encoding="utf-8"))


def remove_old(workspace: Workspace, model: str, keep: int) -> None:
    """Delete all versions but the last ones and the bases they stand on."""
    found = versions(workspace, model)
    kept = set(found[-keep:])
    for version in list(kept):
        meta = json.loads(workspace.read_text(f"indexes/{model}/{version}/{META_FILE}") or "{}")
        kept |= {meta["base"]} if meta.get("base") else set()
    for version in found:
        if version not in kept:
            workspace.remove(f"indexes/{model}/{version}")


def index_uri(workspace: Workspace, model: str) -> str:
    return f"{workspace.uri}/indexes/{model}/{current_version(workspace, model)}"


def index_rows(workspace: Workspace, model: str, split: str) -> pa.Table:
    """The embeddings of a model with what a search answer shows of each sample."""
    wanted = ["sample_id", "product_id", "domain", "vector", "fingerprint"]
    embeddings = workspace.table(EMBEDDINGS).read(wanted, f"model = '{model}'").sort_by("sample_id")
    where = None if split == "all" else f"split = '{split}'"
    samples = workspace.table(SAMPLES).read(["sample_id", "media_uris"], where)
    at = pc.index_in(embeddings["sample_id"], value_set=samples["sample_id"].combine_chunks())
    embeddings, at = embeddings.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    texts = text_array(sample_texts(workspace, "llm"), embeddings["sample_id"].to_pylist())
    uris = [uris[0] for uris in samples["media_uris"].take(at).to_pylist()]
    # A row's own name: what made its vector, and what is shown of it.
    columns = (embeddings["sample_id"].to_pylist(), embeddings["fingerprint"].to_pylist(), texts.to_pylist(), uris)
    names = [fingerprint(*row) for row in zip(*columns, strict=True)]
    return (
        embeddings.drop_columns("fingerprint")
        .append_column("text", texts)
        .append_column("media_uri", pa.array(uris, pa.string()))
        .append_column("fingerprint", pa.array(names, pa.string()))
    )
