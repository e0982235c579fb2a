"""Fusion of the visual and the textual features: the paper's (section III-D, equation 2) and what it was compared with
(section IV-E, table IX).

All take the same features and give one per row; `out_width` is its width.

Letters: B batch, n frames, L tokens, W width, T width of the text tower.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ampere.config.model import FusionChoice, ModelSettings
from ampere.models.blocks import all_visible, transformer_blocks


class Projections(nn.Module):
    """Base of the fusions: a Linear layer for each modality brings both to one width."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__()
        self.visual_projection = nn.Linear(sizes.width, sizes.width)
        self.text_projection = nn.Linear(sizes.text_width, sizes.width)
        self.blocks = nn.ModuleList()
        self.out_width = sizes.width

    def forward(self, v: Tensor, z: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse one clip's features with its text's.

        Args:
            v: float [B, W], the video feature.
            z: float [B, n, W], the frame features.
            tokens: float [B, L, T], the text features; the first is CLS.
            token_mask: bool [B, L]; False marks padding, which nothing attends to.

        Returns:
            float [B, `out_width`].
        """
        visual = self.visual_projection(torch.cat([v[:, None], z], dim=1))
        return self.fuse(visual, self.text_projection(tokens), token_mask)

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse projected features: visual float [B, 1 + n, W], the video feature first; text float [B, L, W]."""
        raise NotImplementedError


class SelfAttention(Projections):
    """The paper's: blocks over the concatenation; the video feature plus CLS."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width
        )

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        stream = torch.cat([visual, text], dim=1)
        visible = torch.cat(
            [all_visible(len(visual), visual.shape[1], visual.device), token_mask], dim=1
        )
        for block in self.blocks:
            stream = block(stream, visible)
        return stream[:, 0] + stream[:, visual.shape[1]]


class PooledOnly(Projections):
    """Base of the fusions without blocks, which read the video feature and CLS alone.

    The projections of frames and other tokens would get no gradient of their own, so only these two are computed.
    """

    def forward(self, v: Tensor, z: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        return self.fuse(
            self.visual_projection(v[:, None]), self.text_projection(tokens[:, :1]), token_mask
        )


class Sum(PooledOnly):
    """SUM: the projected video feature plus the projected CLS."""

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        return visual[:, 0] + text[:, 0]


class Concatenation(PooledOnly):
    """CAT: the two side by side."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.out_width = 2 * sizes.width

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        return torch.cat([visual[:, 0], text[:, 0]], dim=-1)


class TextAsQuery(Projections):
    """XA-t-as-Q: blocks in which the text attends to the visual features; CLS."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        # Each token is a query by itself, so the others would be computed for nothing.
        stream = text[:, :1]
        for block in self.blocks:
            stream = block(stream, context=visual)
        return stream[:, 0]


class VisionAsQuery(Projections):
    """XA-v-as-Q: blocks in which the visual features attend to the text; the video feature."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        self.blocks = transformer_blocks(
            sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        stream = visual[:, :1]
        for block in self.blocks:
            stream = block(stream, token_mask, context=text)
        return stream[:, 0]


class CoAttention(Projections):
    """CoA: ViLBERT's co-attention; in every layer each modality attends to the other's stream; both are summed."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(sizes)
        # Visual and textual blocks by turns.
        self.blocks = transformer_blocks(
            2 * sizes.fusion_layers, sizes.width, sizes.heads, sizes.mlp_width, cross=True
        )

    def fuse(self, visual: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        for of_visual, of_text in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            visual, text = (
                of_visual(visual, token_mask, context=text),
                of_text(text, context=visual),
            )
        return visual[:, 0] + text[:, 0]


FUSIONS: dict[FusionChoice, Callable[[ModelSettings], Projections]] = {
    "ours": SelfAttention,
    "sum": Sum,
    "cat": Concatenation,
    "xa-t-as-q": TextAsQuery,
    "xa-v-as-q": VisionAsQuery,
    "coa": CoAttention,
}
