"""The models of a workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampere.models.model_folder import embedding_name
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.models.embedder import Embedder


def model_folder(workspace: Workspace, name: str) -> Path:
    """Local folder of a model of the workspace; fetched first if the workspace is in a cloud.

    Raises:
        FileNotFoundError: the workspace has no model of that name.
    """
    names = workspace.names("models")
    if name not in names:
        hint = f"it has {', '.join(names)}" if names else "run `ampere train` first"
        raise FileNotFoundError(f"model {name!r} not found in {workspace.uri}; {hint}")
    return workspace.fetch(f"models/{name}")


def load_embedder(uri: str, model: str, name: str, device: str, **settings: Any) -> "Embedder":
    """Load a model in a process that was started for certain weights of it.

    Args:
        uri: of the workspace.
        model: name of the model.
        name: name of the model with its weights, as `embedding_name` gives it.
        device: torch's name of the device.
        settings: further arguments of `Embedder`.

    Raises:
        FileNotFoundError: the workspace has no such model.
        ValueError: the model was trained again since the process was started.
    """
    from ampere.models.embedder import Embedder  # imports torch and transformers: seconds

    folder = model_folder(Workspace.open(uri), model)
    check_weights(model, embedding_name(folder), name)
    embedder = Embedder(folder, device, **settings)
    check_weights(model, embedder.name, name)  # a training may have replaced the files meanwhile
    return embedder


def check_weights(model: str, actual: str, expected: str) -> None:
    """Check that a model's weights are those that a process was started for.

    Raises:
        ValueError: they are not.
    """
    if actual != expected:
        raise ValueError(
            f"model weights of {model} changed: expected {expected}, found {actual}. Run "
            "`ampere embed` and `ampere index`, then restart the endpoint if there is one"
        )
