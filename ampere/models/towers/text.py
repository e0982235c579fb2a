"""Text towers: BERT as the paper has it, and any other encoder of transformers.

Letters: B texts, L tokens, T width of the tower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from ampere.config.model import ModelSettings
from ampere.models.checkpoint import weights_from_files


class TextTower(Protocol):
    """What AMPere uses of a text encoder of transformers; it is a `torch.nn.Module`."""

    def __call__(self, *, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Encode token ids, int64 [B, L]: an object with `last_hidden_state`, float [B, L, T]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over all weights."""
        ...

    def gradient_checkpointing_enable(self, *, gradient_checkpointing_kwargs: Any) -> None:
        """Store only the activations between layers."""
        ...


def build_bert(sizes: ModelSettings, vocab_size: int, pad_token_id: int) -> BertModel:
    """BERT with the layout of `hfl/rbt6` (512 positions, MLP of 4 widths), without the pooler."""
    return BertModel(
        BertConfig(
            vocab_size=vocab_size,
            pad_token_id=pad_token_id,
            hidden_size=sizes.text_width,
            intermediate_size=4 * sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
        ),
        add_pooling_layer=False,
    )


def build_text_encoder(fields: dict[str, Any]) -> nn.Module:
    """Build an encoder from the fields that `read_text_encoder` returned, with random weights."""
    fields = dict(fields)
    encoder = AutoModel.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    freeze_pooler(encoder)
    return encoder


def text_encoder_width(fields: dict[str, Any]) -> int:
    """Return T of an encoder with these fields."""
    fields = dict(fields)
    return AutoConfig.for_model(fields.pop("model_type"), **fields).hidden_size


def freeze_pooler(encoder: nn.Module) -> None:
    """Freeze what follows `last_hidden_state`: DDP waits for the gradient of all other weights."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)


def read_text_encoder(source: str) -> dict[str, Any] | None:
    """Read the config of an encoder.

    Args:
        source: hub name or folder.

    Returns:
        Its fields with `model_type`; None for a BERT, whose sizes are in the settings.

    Raises:
        OSError: the hub or the folder does not have such a model.
    """
    config = AutoConfig.from_pretrained(source)
    if config.model_type == "bert":
        return None
    return config.to_diff_dict() | {"model_type": config.model_type}


def load_text_encoder_weights(source: str) -> dict[str, Tensor]:
    """Load the published weights of a text encoder.

    Raises:
        OSError: the hub or the folder does not have such a model.
    """
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    pretrained, info = loaded
    return weights_from_files(pretrained.state_dict(), info["missing_keys"])
