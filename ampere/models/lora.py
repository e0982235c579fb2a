"""LoRA (Hu et al. 2021, through peft): small adapters are trained in place of a tower's weights.

An adapter adds the product of two thin matrices to a layer's weight matrix. `merge_lora` folds it
in, so that a saved model has the same layers as one without adapters, and needs no peft.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ampere.models.ampere import AMPere
from ampere.models.base import Network


def add_lora(model: Network, rank: int) -> None:
    """Add adapters to the towers that have published weights and are not frozen.

    Their attention layers get adapters, which do not change the vectors yet; all their other
    weights are frozen.

    Args:
        model: an AMPere, changed in place.
        rank: columns of the thin matrices.

    Raises:
        ValueError: such a tower has no attention layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    assert isinstance(model, AMPere)
    for tower in lora_towers(model):
        layers = attention_layers(tower)
        if not layers:
            raise ValueError(
                f"train.lora_rank is {rank}, but {type(tower).__name__} has no attention layers; "
                "expected a Transformer. Set --train.lora-rank 0, or freeze this tower with "
                "--model.freeze-vision or --model.freeze-text"
            )
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=layers), tower)


def lora_towers(model: AMPere) -> list[nn.Module]:
    """The towers with published weights that are not frozen."""
    sizes = model.config.sizes
    towers: list[nn.Module] = []
    if model.video is not None and sizes.vision_weights and not sizes.freeze_vision:
        towers.append(model.video.tower)
    if model.text is not None and sizes.text_weights and not sizes.freeze_text:
        towers.append(model.text)
    return towers


def attention_layers(tower: nn.Module) -> list[str]:
    """Names of the linear layers in a tower's attention: queries, keys, values and output.

    The output layer of torch's own MultiheadAttention has another class, and is not among them: it
    is never called, only its weight is read.
    """
    return [
        name
        for name, layer in tower.named_modules()
        if type(layer) is nn.Linear and ("attn" in name or "attention" in name)
    ]


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name; each is a `peft.tuners.lora.Linear`."""
    from peft.tuners.lora import Linear

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear)}


@torch.no_grad()
def without_adapters(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give weights their names in a model without adapters, and fold the adapters in.

    Args:
        model: with adapters; it is not changed.
        weights: its trainable weights on the CPU, by name.
    """
    folded = {name: weight for name, weight in weights.items() if ".lora_" not in name}
    for name, layer in adapted_layers(model).items():
        weight = layer.base_layer.weight + layer.get_delta_weight(layer.active_adapters[0])
        folded[f"{name}.weight"] = weight.cpu()
    return folded


def merge_lora(model: nn.Module) -> None:
    """Fold the adapters into the weights, in place; the layers are those of a plain model again."""
    for name, layer in adapted_layers(model).items():
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
