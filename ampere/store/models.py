"""The models of a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampere.models.model_folder import embedding_name
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.models.embedder import Embedder


def model_folder(workspace: Workspace, name: str) -> Path:
    """Local folder of a model of the workspace.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    names = workspace.names("models")
    if name not in names:
        have = f"it has {', '.join(names)}" if names else "run `ampere train` first"
        raise FileNotFoundError(f"{workspace.uri} has no model {name!r}; {have}")
    return workspace.fetch(f"models/{name}")


def own_embedder(uri: str, model: str, name: str, device: str, **settings: Any) -> "Embedder":
    """A model, for a process that was started to work with just these weights.

    Args:
        uri: of the workspace.
        model, name: the model, and how `embedding_name` names it with its weights.
        device: torch's name of it.
        settings: what else `Embedder` takes.

    Raises:
        FileNotFoundError: the workspace has no such model.
        ValueError: the model was trained again since.
    """
    from ampere.models.embedder import (
        Embedder,
    )  # torch and transformers: seconds, which not all need spend

    folder = model_folder(Workspace.open(uri), model)
    check_own(model, embedding_name(folder), name)
    embedder = Embedder(folder, device, **settings)
    check_own(model, embedder.name, name)  # the folder may have become another's while it was read
    return embedder


def check_own(model: str, found: str, name: str) -> None:
    """Raise ValueError if a model is not the one that a process was started for."""
    if found != name:
        raise ValueError(
            f"model {model} is {found} by now, and this was started for {name}; run `ampere embed` and `ampere index`, "
            "then start the endpoint again if there is one"
        )
