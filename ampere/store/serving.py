"""Which weights of a model are served: a copy of them, with a pointer that endpoints follow.

serving/ampere.json                      the weights to serve, and what a gateway must know of them
serving/ampere@3f2a8c01/ampere/          a copy of the model folder, which no training replaces

The index stage writes both once the weights have an index. An endpoint loads the new weights beside
the old ones and changes to them at once, so no query of one model searches vectors of the other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ampere.config.summarize import TextSource
from ampere.models.model_folder import WEIGHTS_FILE, embedding_name, text_source
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace

FOLDER = "serving"


@dataclass(frozen=True)
class ServedModel:
    """The weights of a model that are served.

    Attributes:
        model: its name, such as `ampere`.
        name: with the weights, as `embedding_name`.
        text: what they read as text.
    """

    model: str
    name: str
    text: TextSource

    @property
    def reads_text(self) -> bool:
        """Whether the model embeds words; otherwise words alone rank by texts."""
        return self.text != "none"


def publish_weights(workspace: Workspace, model: str) -> ServedModel:
    """Serve the current weights of a model from now on; they need an index.

    Raises:
        FileNotFoundError: no such model.
    """
    folder = model_folder(workspace, model)
    served = ServedModel(model, embedding_name(folder), text_source(folder))
    if served.name not in workspace.names(FOLDER):
        workspace.publish(folder, f"{FOLDER}/{served.name}/{model}", last=WEIGHTS_FILE)
    if _read(workspace, model) != asdict(served):
        workspace.write_text(f"{FOLDER}/{model}.json", json.dumps(asdict(served)))
    return served


def served_model(workspace: Workspace, model: str) -> ServedModel:
    """The weights of a model that are to be served.

    Raises:
        FileNotFoundError: the workspace has no such model, or no index of it.
    """
    fields = _read(workspace, model)
    if fields is None:
        model_folder(workspace, model)  # for its error
        raise FileNotFoundError(
            f"{workspace.uri} has no index of model {model}; run `ampere embed --embed.model "
            f"{model}` and `ampere index --index.model {model}`"
        )
    return ServedModel(**fields)


def served_name(workspace: Workspace, model: str) -> str | None:
    """Name of a model with the weights that are to be served; None: there are none."""
    fields = _read(workspace, model)
    return None if fields is None else ServedModel(**fields).name


def served_folder(workspace: Workspace, name: str) -> Path:
    """Local folder of the copy of some weights; fetched first if the workspace is in a cloud.

    Raises:
        FileNotFoundError: there is no copy.
    """
    return workspace.fetch(f"{FOLDER}/{name}/{name.split('@')[0]}")


def remove_weights(workspace: Workspace, name: str) -> None:
    """Delete the copy of some weights, if there is one."""
    if name in workspace.names(FOLDER):
        workspace.remove(f"{FOLDER}/{name}")


def _read(workspace: Workspace, model: str) -> dict[str, Any] | None:
    text = workspace.read_text(f"{FOLDER}/{model}.json")
    return None if text is None else json.loads(text)
