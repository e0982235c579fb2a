"""Training checkpoints: resuming gives the same training as no stop, on any number of ranks.

A folder has

- `state.json`: the step, the best score and the metrics so far;
- `model.safetensors`, and `best.safetensors` after the first validation: the trainable weights.
  Frozen weights are not saved, since they are those that the network starts with;
- `optimizer.safetensors`: the optimizer's tensors, named PARAMETER:KEY;
- `classes-FIRST.safetensors`, one from each rank: its class centers and their optimizer's tensors,
  from class FIRST on.

Batches, learning rates, dropout and the classifier's class sampling follow from the seed and the
step alone, so they have no state.
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
    """Return the weights that are not frozen, by name; tied weights have one name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save_state(
    folder: Path,
    model: nn.Module,
    classifier: PartialFC,
    optimizers: Optimizers,
    progress: Mapping[str, Any],
    best: Mapping[str, Tensor] | None,
) -> None:
    """Write this rank's part of a checkpoint: its classes; on rank 0 also everything else.

    Args:
        folder: made if it does not exist.
        model: its trainable weights are written.
        classifier: its centers on this rank are written.
        optimizers: of the model and of the classifier.
        progress: JSON values for state.json.
        best: trainable weights of the best model so far, or None.
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
    """Load a checkpoint, which any number of ranks may have written.

    Returns:
        Its progress, and the best model's trainable weights, if any.

    Raises:
        ValueError: the checkpoint has other weights or classes; the message names them.
        FileNotFoundError: a file is missing.
    """
    copy_tensors(trainable(model), load_file(folder / WEIGHTS_FILE), source=str(folder))
    load_optimizer_tensors(
        optimizers[0], model.named_parameters(), load_file(folder / OPTIMIZER_FILE)
    )
    load_classes(folder, classifier, optimizers[1])
    best = load_file(folder / BEST_FILE) if (folder / BEST_FILE).exists() else None
    return json.loads((folder / STATE_FILE).read_text(encoding="utf-8")), best


def save_classes(
    folder: Path, classifier: PartialFC, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write this rank's class centers and, if an optimizer is given, its tensors for them."""
    tensors = {CENTERS: classifier.centers.detach()}
    if optimizer is not None:
        tensors |= optimizer_tensors(optimizer, [(CENTERS, classifier.centers)])
    if len(classifier.centers):
        save_file(_plain(tensors), folder / f"classes-{classifier.first_class:09}.safetensors")


def load_classes(folder: Path, classifier: PartialFC, optimizer: torch.optim.Optimizer) -> None:
    """Load this rank's classes from the files of all ranks, whatever their number.

    Example: two ranks wrote classes 0-3 and 4-6; of three ranks, the second has classes 3-5, so it
    reads row 3 of the first file and rows 0-1 of the second.

    Raises:
        ValueError: the files do not have exactly the classifier's classes.
    """
    tensors: dict[str, Tensor] = {}  # of the optimizer
    first, stop = classifier.first_class, classifier.first_class + len(classifier.centers)
    offset = 0  # class of the file's first row
    for path in sorted(folder.glob("classes-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            size = file.get_slice(CENTERS).get_shape()[0]
            low, high = max(first, offset), min(stop, offset + size)
            for name in file.keys():  # noqa: SIM118 - not a dict
                if not file.get_slice(name).get_shape():  # the optimizer's count of steps
                    tensors[name] = file.get_tensor(name)
                elif low < high:
                    rows = file.get_slice(name)[low - offset : high - offset]
                    if name == CENTERS:
                        classifier.load_rows(low, rows)
                    else:
                        tensors[name] = (
                            torch.cat([tensors[name], rows]) if name in tensors else rows
                        )
        offset += size
    if offset != classifier.num_classes:
        raise ValueError(
            f"class centers do not fit: {folder} has {offset} classes; expected "
            f"{classifier.num_classes}. Resume with the training products that it was made from."
        )
    if first < stop:  # with more ranks than classes, the last ones have none
        load_optimizer_tensors(optimizer, [(CENTERS, classifier.centers)], tensors)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return an optimizer's state as tensors named PARAMETER:KEY."""
    return {
        f"{name}:{key}": torch.as_tensor(value)
        for name, parameter in parameters
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[tuple[str, nn.Parameter]],
    tensors: Mapping[str, Tensor],
) -> None:
    """Set an optimizer's state from the `optimizer_tensors` of one of the same class."""
    by_name = dict(parameters)
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(":")
        parameter = by_name[name]
        state = optimizer.state.setdefault(parameter, {})
        if value.ndim:
            state[key] = value.to(parameter.device)
        else:  # AdamW counts its steps in a tensor, SparseAdam in an int
            state[key] = int(value) if isinstance(optimizer, torch.optim.SparseAdam) else value


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, contiguous, as safetensors requires."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
