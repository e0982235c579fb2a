"""Fusion of visual and text features: the paper's and its alternatives.

The paper's is section III-D, equation 2; the alternatives are section IV-E, table IX. All take the
same features and return one per row.

Letters: B batch, n frames, L tokens, W width of the fusion, T width of the text tower.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ampere.config.model import FusionChoice, ModelSettings
from ampere.models.blocks import all_visible, transformer_blocks


class Fusion(nn.Module, ABC):
    """Base of the fusions: a Linear layer per modality brings both to one width.

    Attributes:
        blocks: Transformer blocks; empty for some fusions.
        out_width: width of the fused feature.
        last_layer_bias: whether the last layer, which reads the fused feature, has a bias.
    """

    last_layer_bias = True

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__()
        self.visual_projection = nn.Linear(sizes.width, sizes.width)
        self.text_projection = nn.Linear(sizes.text_width, sizes.width)
        self.blocks = nn.ModuleList()
        self.out_width = sizes.width

    def forward(self, v: Tensor, z: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse the features of clips with those of their texts.

        Args:
            v: float [B, W], the video feature.
            z: float [B, n, W], the frame features.
            tokens: float [B, L, T], the text features; the first is CLS.
            token_mask: bool [B, L]; False marks padding, which nothing attends to.

        Returns:
            float [B, `out_width`].
        """
        visual = self.visual_projection(torch.cat([v[:, None], z], dim=1))
        return self._fuse(visual, self.text_projection(tokens), token_mask)

    @abstractmethod
    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse projected features into float [B, `out_width`].

        Args:
            visual: float [B, 1 + n, W], the video feature first.
            text: float [B, L, W].
            token_mask: bool [B, L].
        """


class SelfAttention(Fusion):
    """The paper's equation 2: blocks over the concatenation; returns video feature plus CLS."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width
        )

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        stream = self._mix(torch.cat([visual, text], dim=1), token_mask)
        return stream[:, 0] + stream[:, visual.shape[1]]

    def _mix(self, stream: Tensor, token_mask: Tensor) -> Tensor:
        """Pass the concatenation, float [B, 1 + n + L, W], through the blocks."""
        batch, positions = stream.shape[0], stream.shape[1] - token_mask.shape[1]
        visible = torch.cat([all_visible(batch, positions, stream.device), token_mask], dim=1)
        for block in self.blocks:
            stream = block(stream, visible)
        return stream


class AuthorsHead(SelfAttention):
    """As the authors' public modules: a LayerNorm before and after the blocks of `SelfAttention`.

    Returns the concatenation of video feature and CLS. A last layer without bias over it is the sum
    of two projections, one of either feature. Unlike there, padding is masked.
    """

    last_layer_bias = False

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.norm_before = nn.LayerNorm(sizes.width)
        self.norm_after = nn.LayerNorm(sizes.width)
        self.out_width = 2 * sizes.width

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        stream = self._mix(self.norm_before(torch.cat([visual, text], dim=1)), token_mask)
        stream = self.norm_after(stream)
        return torch.cat([stream[:, 0], stream[:, visual.shape[1]]], dim=-1)


class PooledOnly(Fusion):
    """Base of the fusions without blocks, which read only the video feature and CLS.

    Other positions are not projected: nothing reads them.
    """

    def forward(self, v: Tensor, z: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse v [B, W] with the CLS feature of tokens [B, L, T]; see `Fusion.forward`."""
        visual = self.visual_projection(v[:, None])
        return self._fuse(visual, self.text_projection(tokens[:, :1]), token_mask)


class Sum(PooledOnly):
    """SUM: the projected video feature plus the projected CLS."""

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        return visual[:, 0] + text[:, 0]


class Concatenation(PooledOnly):
    """CAT: the projected video feature and the projected CLS, concatenated."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.out_width = 2 * sizes.width

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        return torch.cat([visual[:, 0], text[:, 0]], dim=-1)


class TextAsQuery(Fusion):
    """XA-t-as-Q: blocks in which text attends to itself, then to visual features; returns CLS."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        for block in self.blocks:
            text = block(text, token_mask, context=visual)
        return text[:, 0]


class VisionAsQuery(Fusion):
    """XA-v-as-Q: as XA-t-as-Q, with the visual features as queries; returns the video feature."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        for block in self.blocks:
            visual = block(visual, context=text, context_visible=token_mask)
        return visual[:, 0]


class CoAttention(Fusion):
    """CoA: ViLBERT's co-attention, in which each modality attends to itself, then to the other.

    Returns the video feature plus CLS.
    """

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        # Visual and text blocks alternate.
        self.blocks = transformer_blocks(
            2 * sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def _fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        for visual_block, text_block in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            visual, text = (
                visual_block(visual, context=text, context_visible=token_mask),
                text_block(text, token_mask, context=visual),
            )
        return visual[:, 0] + text[:, 0]


FUSIONS: dict[FusionChoice, Callable[[ModelSettings], Fusion]] = {
    "ours": SelfAttention,
    "authors": AuthorsHead,
    "sum": Sum,
    "cat": Concatenation,
    "xa-t-as-q": TextAsQuery,
    "xa-v-as-q": VisionAsQuery,
    "coa": CoAttention,
}
