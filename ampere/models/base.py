"""The interface that all networks share: AMPere and the systems that it is compared with.

Letters: B batch, F frames (1 or `num_frames`), L tokens, D embedding dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ampere.config.model import View


class Network(nn.Module, ABC):
    """An embedding network: frames and text in, one vector per sample out.

    Attributes:
        embedding_dim: D.
        image_size: height and width of the frames, in pixels.
        view: what of a frame is read when it is embedded; see `ampere.media.images.model_input`.
        num_frames: frames of a clip (a short or a live); a page has one frame.
        reads_frames: whether the embedding depends on frames.
        reads_text: whether the embedding depends on text.
        embeds_alone: whether it also embeds a sample's frames alone and its text alone.
        is_frozen_encoder: whether every part that reads frames is frozen. Training then reads
            features that are computed once, and no random crops.
        feature_width: V, if `forward` also takes a frozen tower's features, float16 [B, F, V], in
            place of frames; 0: it does not.
        max_text_tokens: maximum L, with CLS and SEP; longer texts are truncated. 0: the network
            takes strings instead of token ids.
    """

    embedding_dim: int
    image_size: int
    view: View = "center"
    num_frames: int
    reads_frames: bool = True
    reads_text: bool
    max_text_tokens: int
    embeds_alone: bool = False
    is_frozen_encoder: bool = False
    feature_width: int = 0

    @property
    def embeds_words(self) -> bool:
        """Whether it embeds a text without a picture, not a text with a black one."""
        return self.reads_text and (self.embeds_alone or not self.reads_frames)

    __call__: Callable[..., Tensor]

    @abstractmethod
    def forward(
        self, frames: Tensor, text: Any, token_mask: Tensor | None, domains: Tensor | None, /
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalized.
            text: what `ampere.models.networks.text_inputs` returns for this network: token ids,
                int64 [B, L]; strings; or None.
            token_mask: bool or int64 [B, L], zero at padding; None without token ids.
            domains: int64 [B], index of each row's domain in `Domain`.

        Returns:
            float32 [B, D].
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate: `text`, `video`, `fusion` and `rest`."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Trade computation for memory: recompute activations in the backward pass."""

    @abstractmethod
    def save_pretrained(
        self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Write model.safetensors, config.json and the tokenizer's files to a folder."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, folder: Path | str) -> Network:
        """Load what `save_pretrained` wrote, on the CPU and in evaluation mode."""


def in_float32(layer: nn.Module, features: Tensor) -> Tensor:
    """Apply a network's last layer in float32, also under autocast.

    Similarities of vectors that were rounded to bfloat16 would tie.

    Args:
        layer: with float32 weights.
        features: float [..., W].

    Returns:
        float32 [..., D].
    """
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.float())


def check_tokens(
    token_ids: Tensor | None, token_mask: Tensor | None, batch: int
) -> tuple[Tensor, Tensor]:
    """Validate the tokens of a batch.

    Args:
        token_ids: int64 [B, L].
        token_mask: bool or int64 [B, L]; zero marks padding.
        batch: B.

    Returns:
        The token ids, and the mask as bool [B, L].

    Raises:
        ValueError: ids or mask are missing, or their shapes do not match each other or B.
    """
    if token_ids is None or token_mask is None:
        raise ValueError(
            "this model reads text, but token_ids or token_mask is None; pass both "
            "(an empty text still has CLS)"
        )
    if token_ids.shape != token_mask.shape or len(token_ids) != batch:
        raise ValueError(
            f"token shapes do not match: token_ids {list(token_ids.shape)}, "
            f"token_mask {list(token_mask.shape)}, {batch} rows of frames; "
            "expected ids and mask of one shape [B, L], with one row per row of frames"
        )
    return token_ids, token_mask.to(torch.bool)
