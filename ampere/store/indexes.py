"""The versions of a search index in a workspace."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ampere.retrieval.index import META_FILE, SearchIndex, base_folder, read_meta
from ampere.store.workspace import Workspace

CURRENT_FILE = "current.json"
# Raised by a version whose files are missing, damaged or not those of an index.
UNUSABLE = (OSError, ValueError, KeyError)


def served_before(workspace: Workspace, model: str, version: str) -> str:
    """Return the version that was current when this one was built.

    After a rollback that need not be the last one before it. This version itself is returned if its
    index.json does not record it.
    """
    try:
        return current_meta(workspace, model)["before"] or version
    except UNUSABLE:
        return version


def open_index(
    workspace: Workspace, model: str, name: str, shards: Sequence[int] | None = None
) -> SearchIndex:
    """Load the current version of a model's index.

    Args:
        name: of the model that embeds the queries, with the checksum of its weights; see
            `embedding_name`.
        shards: shards to load; None: all.

    Raises:
        FileNotFoundError: the model has no index.
        ValueError: the index is of other weights, or a file does not match its checksum.
    """
    folder = version_folder(workspace, model, current_version(workspace, model))
    check_model(read_meta(folder), name)
    return SearchIndex(folder, shards)


def check_model(meta: dict[str, Any], name: str) -> None:
    """Raise ValueError unless an index is of the weights that embed the queries.

    Args:
        meta: its index.json.
        name: see `open_index`.
    """
    if meta["model"] != name:
        model = name.split("@")[0]
        raise ValueError(
            f"model weights changed: the index holds vectors of {meta['model']}, but queries are "
            f"embedded by {name}. Run `ampere embed --embed.model {model}` and "
            f"`ampere index --index.model {model}`"
        )


def current_meta(workspace: Workspace, model: str) -> dict[str, Any]:
    """Return index.json of the current version.

    Raises:
        FileNotFoundError: the model has no index, or its current version is missing.
    """
    version = current_version(workspace, model)
    text = workspace.read_text(f"indexes/{model}/{version}/{META_FILE}")
    if text is None:
        raise FileNotFoundError(
            f"{workspace.uri} has no {version} of index {model}; run `ampere index` again"
        )
    return json.loads(text)


def version_folder(workspace: Workspace, model: str, version: str) -> Path:
    """Return the local folder of a version, with its base beside it."""
    folder = workspace.fetch(f"indexes/{model}/{version}")
    base = base_folder(folder, read_meta(folder))
    if not base.exists():
        base.symlink_to(workspace.fetch(f"indexes/{model}/{base.name}"))
    return folder


def versions(workspace: Workspace, model: str) -> list[str]:
    """Return the versions of a model's index, oldest first.

    A folder without index.json is not a version: index.json is written last.
    """
    names = workspace.names(f"indexes/{model}")
    return [
        name
        for name in names
        if workspace.read_text(f"indexes/{model}/{name}/{META_FILE}") is not None
    ]


def current_version(workspace: Workspace, model: str) -> str:
    """Return the name of the current version of a model's index.

    Raises:
        FileNotFoundError: the model has no index.
    """
    text = workspace.read_text(f"indexes/{model}/{CURRENT_FILE}")
    if text is None:
        raise FileNotFoundError(
            f"{workspace.uri} has no index of model {model!r}; run `ampere index` first"
        )
    return json.loads(text)["version"]


def set_current(workspace: Workspace, model: str, version: str) -> None:
    """Make a version current."""
    workspace.write_text(f"indexes/{model}/{CURRENT_FILE}", json.dumps({"version": version}))


def next_version(workspace: Workspace, model: str) -> str:
    """Return the name of a version after the last one."""
    names = versions(workspace, model)
    return f"v{int(names[-1][1:]) + 1 if names else 1:06}"


def current_folder(workspace: Workspace, model: str) -> Path | None:
    """Return the local folder of the current version; None if there is none or it is unusable."""
    try:
        return version_folder(workspace, model, current_version(workspace, model))
    except UNUSABLE:
        return None


def remove_old(workspace: Workspace, model: str, keep: int, before: str) -> None:
    """Delete old versions.

    The last `keep` versions stay, with their bases, and `before`, which a search may be opening.
    """
    names = versions(workspace, model)
    retained = {*names[-keep:], before}
    retained = retained.union(*(bases(workspace, model, version) for version in retained))
    for version in names:
        if version not in retained:
            workspace.remove(f"indexes/{model}/{version}")


def bases(workspace: Workspace, model: str, version: str) -> set[str]:
    """Return the base of a delta; empty for a base, and for a version that cannot be read."""
    try:
        text = workspace.read_text(f"indexes/{model}/{version}/{META_FILE}")
        base = json.loads(text or "{}")["base"]
    except UNUSABLE:
        return set()
    return {base} if base else set()


def index_uri(workspace: Workspace, model: str) -> str:
    """Return the URI of the current version of a model's index."""
    return f"{workspace.uri}/indexes/{model}/{current_version(workspace, model)}"
