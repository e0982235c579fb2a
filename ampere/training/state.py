"""Training checkpoints: all that a training needs to go on as if it had never stopped, on any number of ranks.

A folder holds

- `state.json`: the step, the best score so far, the metrics up to now;
- `model.safetensors`, and `best.safetensors` once there was a validation: the weights that are trained. Frozen ones are
  those that the network starts with;
- `optimizer.safetensors`: the optimizer's tensors, each under its parameter's name;
- `classes-FIRST.safetensors`, one from each rank: its class centres and their optimizer's tensors, from class FIRST on.

Batches, schedule, dropout and the classifier's sampling follow from the seed and the step alone, so they have no state.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ampere.losses.gather import rank_and_world_size
from ampere.losses.partial_fc import PartialFC
from ampere.models.checkpoint import copy_tensors
from ampere.models.model_folder import WEIGHTS_FILE

STATE_FILE = "state.json"
BEST_FILE = "best.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
CENTERS = "centers"
Optimizers = tuple[torch.optim.Optimizer, torch.optim.Optimizer]  # of the model, of the classifier


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are not frozen, by name; one that stands in two places is named once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save_state(
    folder: Path,
    model: nn.Module,
    classifier: PartialFC,
    optimizers: Optimizers,
    progress: Mapping[str, Any],
    best: Mapping[str, Tensor] | None,
) -> None:
    """Write this rank's part of a checkpoint: its classes, and on rank 0 all else.

    Args:
        progress: plain values for state.json.
        best: trained weights of the best model, if one is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_classes(folder, classifier, optimizers[1])
    if rank_and_world_size()[0] == 0:
        save_file(_plain(trainable(model)), folder / WEIGHTS_FILE)
        save_file(
            _plain(optimizer_tensors(optimizers[0], model.named_parameters())),
            folder / OPTIMIZER_FILE,
        )
        if best is not None:
            save_file(_plain(best), folder / BEST_FILE)
        (folder / STATE_FILE).write_text(json.dumps(progress), encoding="utf-8")


def load_state(
    folder: Path, model: nn.Module, classifier: PartialFC, optimizers: Optimizers
) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """Take up a checkpoint that any number of ranks wrote; returns its progress and the best model's trained weights.

    Raises:
        ValueError: the checkpoint is of another model or of other classes; the message says what does not fit.
        FileNotFoundError: a file is not there.
    """
    copy_tensors(trainable(model), load_file(folder / WEIGHTS_FILE), source=str(folder))
    put_optimizer_tensors(
        optimizers[0], model.named_parameters(), load_file(folder / OPTIMIZER_FILE)
    )
    load_classes(folder, classifier, optimizers[1])
    best = load_file(folder / BEST_FILE) if (folder / BEST_FILE).exists() else None
    return json.loads((folder / STATE_FILE).read_text(encoding="utf-8")), best


def save_classes(
    folder: Path, classifier: PartialFC, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write this rank's class centres, and what the optimizer keeps for them if one is given."""
    tensors = {CENTERS: classifier.centers.detach()}
    if optimizer is not None:
        tensors |= optimizer_tensors(optimizer, [(CENTERS, classifier.centers)])
    if len(classifier.centers):
        save_file(_plain(tensors), folder / f"classes-{classifier.first_class:09}.safetensors")


def load_classes(folder: Path, classifier: PartialFC, optimizer: torch.optim.Optimizer) -> None:
    """Read the rows of this rank's classes out of the files of all ranks.

    Raises:
        ValueError: the files do not hold exactly the classifier's classes.
    """
    moments: dict[str, Tensor] = {}
    first, stop, count = classifier.first_class, classifier.first_class + len(classifier.centers), 0
    for path in sorted(folder.glob("classes-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            size = file.get_slice(CENTERS).get_shape()[0]
            low, high = max(first, count), min(stop, count + size)
            for name in file.keys():  # noqa: SIM118 - not a dict
                if not file.get_slice(name).get_shape():  # the optimizer's count of steps
                    moments[name] = file.get_tensor(name)
                elif low < high:
                    part = file.get_slice(name)[low - count : high - count]
                    if name == CENTERS:
                        classifier.load_rows(low, part)
                    else:
                        moments[name] = (
                            torch.cat([moments[name], part]) if name in moments else part
                        )
        count += size
    if count != classifier.num_classes:
        raise ValueError(
            f"{folder} holds the centres of {count} classes; this classifier has {classifier.num_classes} classes"
        )
    if first < stop:  # with more ranks than classes the last ones have none
        put_optimizer_tensors(optimizer, [(CENTERS, classifier.centers)], moments)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """What an optimizer keeps, as tensors named PARAMETER:KEY."""
    return {
        f"{name}:{key}": torch.as_tensor(value)
        for name, parameter in parameters
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def put_optimizer_tensors(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[tuple[str, nn.Parameter]],
    tensors: Mapping[str, Tensor],
) -> None:
    """Give an optimizer what `optimizer_tensors` took from one of its kind."""
    by_name = dict(parameters)
    for key, value in tensors.items():
        name, _, kind = key.rpartition(":")
        parameter = by_name[name]
        state = optimizer.state.setdefault(parameter, {})
        if value.ndim:
            state[kind] = value.to(parameter.device)
        else:  # AdamW counts its steps in a tensor, SparseAdam in an int
            state[kind] = int(value) if isinstance(optimizer, torch.optim.SparseAdam) else value


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
