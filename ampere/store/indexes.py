"""The versions of a search index in a workspace."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ampere.retrieval.index import META_FILE, SearchIndex, base_folder, read_meta
from ampere.store.workspace import Workspace

CURRENT_FILE = "current.json"


UNUSABLE = (
    OSError,
    ValueError,
    KeyError,
)  # raised by a version whose files are missing, spoilt or not ours


def served_before(workspace: Workspace, model: str, version: str) -> str:
    """The version that served when this one was built, which a way back may have left older than others; or this one,
    where its index.json does not tell."""
    try:
        return current_meta(workspace, model)["before"] or version
    except UNUSABLE:
        return version


def open_index(
    workspace: Workspace, model: str, name: str, shards: Sequence[int] | None = None
) -> SearchIndex:
    """The current version of a model's index, in memory.

    Args:
        name: of the model that embeds the queries, with the checksum of its weights; see `embedding_name`.
        shards: those to load; None: all.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is an index of other weights, or a file is not what was written.
    """
    folder = version_folder(workspace, model, current_version(workspace, model))
    check_model(read_meta(folder), name)
    return SearchIndex(folder, shards)


def check_model(meta: dict[str, Any], name: str) -> None:
    """Raise ValueError unless an index, as its index.json tells, is of the weights that embed the queries."""
    if meta["model"] != name:
        model = name.split("@")[0]
        raise ValueError(
            f"the index holds vectors of {meta['model']} and queries are embedded by {name}, so what it finds would "
            f"mean nothing; run `ampere embed --embed.model {model}` and `ampere index --index.model {model}`"
        )


def current_meta(workspace: Workspace, model: str) -> dict[str, Any]:
    """What index.json of the current version tells.

    Raises:
        FileNotFoundError: there is no index.
    """
    version = current_version(workspace, model)
    found = workspace.read_text(f"indexes/{model}/{version}/{META_FILE}")
    if found is None:
        raise FileNotFoundError(
            f"{workspace.uri} has no {version} of index {model}; run `ampere index` again"
        )
    return json.loads(found)


def version_folder(workspace: Workspace, model: str, version: str) -> Path:
    """Local folder of a version, with its base beside it."""
    folder = workspace.fetch(f"indexes/{model}/{version}")
    base = base_folder(folder, read_meta(folder))
    if not base.exists():
        base.symlink_to(workspace.fetch(f"indexes/{model}/{base.name}"))
    return folder


def versions(workspace: Workspace, model: str) -> list[str]:
    """Versions of a model's index, oldest first; a folder without index.json is none."""
    names = workspace.names(f"indexes/{model}")
    return [
        name
        for name in names
        if workspace.read_text(f"indexes/{model}/{name}/{META_FILE}") is not None
    ]


def current_version(workspace: Workspace, model: str) -> str:
    found = workspace.read_text(f"indexes/{model}/{CURRENT_FILE}")
    if found is None:
        raise FileNotFoundError(
            f"{workspace.uri} has no index of model {model!r}; run `ampere index` first"
        )
    return json.loads(found)["version"]


def set_current(workspace: Workspace, model: str, version: str) -> None:
    workspace.write_text(f"indexes/{model}/{CURRENT_FILE}", json.dumps({"version": version}))


def next_version(workspace: Workspace, model: str) -> str:
    found = versions(workspace, model)
    return f"v{int(found[-1][1:]) + 1 if found else 1:06}"


def current_folder(workspace: Workspace, model: str) -> Path | None:
    """Local folder of the current version, with its base beside it; None where there is none that can be read."""
    try:
        return version_folder(workspace, model, current_version(workspace, model))
    except UNUSABLE:
        return None


def remove_old(workspace: Workspace, model: str, keep: int, before: str) -> None:
    """Delete all versions but the last ones, the bases they stand on, and `before`, which a reader may just open."""
    found = versions(workspace, model)
    kept = {*found[-keep:], before}
    kept = kept.union(*(bases(workspace, model, version) for version in kept))
    for version in found:
        if version not in kept:
            workspace.remove(f"indexes/{model}/{version}")


def bases(workspace: Workspace, model: str, version: str) -> set[str]:
    """The base that a version stands on, if any; of a version that cannot be read, none."""
    try:
        base = json.loads(workspace.read_text(f"indexes/{model}/{version}/{META_FILE}") or "{}")[
            "base"
        ]
    except UNUSABLE:
        return set()
    return {base} if base else set()


def index_uri(workspace: Workspace, model: str) -> str:
    return f"{workspace.uri}/indexes/{model}/{current_version(workspace, model)}"
