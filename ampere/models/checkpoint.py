"""Reading and writing weights in safetensors format; pickle is neither written nor read."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ampere.models.model_folder import ARCHITECTURE, CONFIG_FILE, WEIGHTS_FILE

SHOWN_PROBLEMS = 5  # of weights that do not fit


def save(folder: Path | str, config: Any, weights: Mapping[str, Tensor]) -> None:
    """Write a config dataclass and named weights to a folder, creating it if needed.

    config.json records the class that reads them: `X` for a config of type `XConfig`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    architecture = type(config).__name__.removesuffix("Config")
    fields = {ARCHITECTURE: architecture} | dataclasses.asdict(config)
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_weights(folder: Path | str) -> dict[str, Tensor]:
    """Load a folder's named weights on the CPU."""
    return load_file(Path(folder) / WEIGHTS_FILE)


def weight_shapes(folder: Path | str) -> dict[str, list[int]]:
    """Names and shapes of a folder's weights, from the file's header alone."""
    with safe_open(Path(folder) / WEIGHTS_FILE, framework="pt") as file:
        names = file.keys()  # the file itself cannot be iterated
        return {name: file.get_slice(name).get_shape() for name in names}


def copy_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named weights into a module; see `copy_tensors`."""
    copy_tensors(module.state_dict(), weights, source=source)


def copy_tensors(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named weights into a module's own tensors, which keep their dtype and device.

    Args:
        own: the module's tensors by name, as its `state_dict()` returns them.
        weights: tensors of the same names and shapes.
        source: where the weights come from, for messages.

    Raises:
        ValueError: weights are missing, unexpected or of another shape. The message names some of
            them, and nothing is copied.
    """
    problems = [f"missing {name}" for name in own.keys() - weights.keys()]
    problems += [f"unexpected {name}" for name in weights.keys() - own.keys()]
    problems += [
        f"{name} is {list(weights[name].shape)}, expected {list(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    if problems:
        shown = sorted(problems)[:SHOWN_PROBLEMS]
        more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise ValueError(f"weights of {source} do not fit the model: {'; '.join(shown)}{more}")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def copy_fitting_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, source: str
) -> set[str]:
    """Copy the weights whose name and shape match one of the module's; return their names.

    Raises:
        ValueError: no weight matches.
    """
    own = module.state_dict()
    fitting = {
        name for name in own.keys() & weights.keys() if own[name].shape == weights[name].shape
    }
    if not fitting:
        raise ValueError(
            f"no weight of {source} fits the model; expected at least one of the same name and "
            "shape"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(weights[name])
    return fitting


def weights_from_files(weights: Mapping[str, Tensor], missing: Iterable[str]) -> dict[str, Tensor]:
    """The weights that transformers' `from_pretrained` read, without those that it initialized.

    transformers draws missing weights at random and only warns. Without them, `copy_tensors`
    reports them as missing.

    Args:
        weights: state dict of the loaded model.
        missing: `missing_keys` of its loading info.
    """
    absent = set(missing)
    return {name: weight for name, weight in weights.items() if name not in absent}
