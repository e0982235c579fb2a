"""Publishing a base of an index that was built before."""

from ampere.models.model_folder import embedding_name
from ampere.retrieval.base import check_files
from ampere.retrieval.searcher import set_serving
from ampere.store.indexes import (
    FOLDER,
    UNUSABLE,
    base_folder,
    base_meta,
    base_name,
    bases,
    search_table,
    serving,
)
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace


def publish_base(workspace: Workspace, name: str, version: int) -> None:
    """Serve the base that was built at a version of the table; searchers follow within seconds.

    Args:
        workspace: with the index.
        name: of the model with its weights, as `embedding_name`.
        version: of the table.

    Raises:
        ValueError: there is no such base, or it is damaged.
    """
    known = bases(workspace, name)
    if version not in known:
        raise ValueError(
            f"version is {version}; index {name} has bases of versions "
            f"{', '.join(map(str, known)) or 'none'}"
        )
    check_files(base_folder(workspace, name, version))
    set_serving(search_table(workspace, name), version)


def roll_back(workspace: Workspace, model: str, name: str | None = None) -> int:
    """Serve the base before the current one again; return its version.

    That is the base that was served when the current one was built. Rows that were added, changed
    or deleted since stay so: only the base changes.

    Args:
        workspace: with the index.
        model: its name.
        name: with the weights; None: those of the last training.

    Raises:
        FileNotFoundError: the model has no index, or no earlier base.
        ValueError: the earlier base is damaged.
        RuntimeError: a job is building this index.
    """
    with workspace.lock(f"index-{model}"):
        name = name or embedding_name(model_folder(workspace, model))
        current = serving(workspace, name)
        last = served_before(workspace, name, current)
        before = [version for version in bases(workspace, name) if version < current]
        before = [version for version in before if last is None or version <= last]
        if not before:
            raise FileNotFoundError(
                f"{workspace.uri} has no base of index {name} before {base_name(current)}"
            )
        goal = before[-1]
        try:
            check_files(base_folder(workspace, name, goal))
        except UNUSABLE as error:
            raise ValueError(
                f"cannot roll back index {name} to {base_name(goal)}: {error}; "
                f"{base_name(current)} stays current. To roll back to an earlier base, remove "
                f"{FOLDER}/{name}/{base_name(goal)} and try again"
            ) from error
        set_serving(search_table(workspace, name), goal)
    return goal


def served_before(workspace: Workspace, name: str, version: int) -> int | None:
    """The version that was served when a base was built; None: unknown, or there was none."""
    try:
        return base_meta(workspace, name, version)["before"]
    except UNUSABLE:
        return None
