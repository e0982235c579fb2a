"""Weights in model folders and in modules. No pickle is written or read."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ampere.models.model_folder import ARCHITECTURE, CONFIG_FILE, WEIGHTS_FILE


def save(folder: Path | str, config: Any, weights: Mapping[str, Tensor]) -> None:
    """Write a config dataclass and named weights to a folder, which is made if need be.

    The class that is to read them, `X` of `XConfig`, is named in config.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {ARCHITECTURE: type(config).__name__.removesuffix("Config")} | dataclasses.asdict(
        config
    )
    (folder / CONFIG_FILE).write_text(
        json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_weights(folder: Path | str) -> dict[str, Tensor]:
    """The named weights of a folder, on the CPU."""
    return load_file(Path(folder) / WEIGHTS_FILE)


def weight_shapes(folder: Path | str) -> dict[str, list[int]]:
    """The names and shapes of a folder's weights, which are not read for it."""
    with safe_open(Path(folder) / WEIGHTS_FILE, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping


def copy_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named weights into a module; see `copy_tensors`."""
    copy_tensors(module.state_dict(), weights, source=source)


def copy_tensors(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named weights into a module's own, in their type and device; the names must be the same on both sides.

    Args:
        source: where the weights come from, for messages.

    Raises:
        ValueError: weights are missing, left over or of another shape; the message names them, and nothing is copied.
    """
    problems = [f"missing {name}" for name in own.keys() - weights.keys()]
    problems += [f"unexpected {name}" for name in weights.keys() - own.keys()]
    problems += [
        f"{name} is {list(weights[name].shape)}, expected {list(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    if problems:
        raise ValueError(f"weights of {source} do not fit the model: {'; '.join(sorted(problems))}")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def copy_fitting_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, source: str
) -> set[str]:
    """Copy those named weights into a module that it has in the same shape; returns their names.

    Raises:
        ValueError: none fits.
    """
    own = module.state_dict()
    fitting = {
        name for name in own.keys() & weights.keys() if own[name].shape == weights[name].shape
    }
    if not fitting:
        raise ValueError(f"no weight of {source} fits the model")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(weights[name])
    return fitting
