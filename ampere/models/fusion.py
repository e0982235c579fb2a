"""Fusion of the visual and the textual features (paper, section III-D, equation 2).

Letters: B batch, n frames, L tokens, W width, T width of the text tower.
"""

import torch
from torch import Tensor, nn

from ampere.models.blocks import all_visible, transformer_blocks


class Fusion(nn.Module):
    """Projects both modalities to one width and mixes them in Transformer blocks over their concatenation."""

    def __init__(self, *, text_width: int, width: int, layers: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.visual_projection = nn.Linear(width, width)
        self.text_projection = nn.Linear(text_width, width)
        self.blocks = transformer_blocks(layers, width, heads, mlp_width)

    def forward(self, v: Tensor, z: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Fuse one clip's features with its text's.

        Args:
            v: float [B, W], the video feature.
            z: float [B, n, W], the frame features.
            tokens: float [B, L, T], the text features; the first is CLS.
            token_mask: bool [B, L]; False marks padding, which nothing attends to.

        Returns:
            float [B, W]: the fused video feature plus the fused CLS.
        """
        visual = self.visual_projection(torch.cat([v[:, None], z], dim=1))
        stream = torch.cat([visual, self.text_projection(tokens)], dim=1)
        visible = torch.cat([all_visible(len(visual), visual.shape[1], visual.device), token_mask], dim=1)
        for block in self.blocks:
            stream = block(stream, visible)
        return stream[:, 0] + stream[:, visual.shape[1]]
