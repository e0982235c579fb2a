"""The pre-norm Transformer block of the temporal and the fusion stacks (paper, sections III-B and III-D).

Letters: B batch, S positions, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TransformerBlock(nn.Module):
    """Multi-head self-attention and an MLP, each after a LayerNorm and inside a residual.

    Args:
        width: W, of the stream.
        heads: attention heads; must divide `width`.
        mlp_width: of the hidden layer.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        if width % heads != 0:
            raise ValueError(f"width is {width} and heads {heads}; heads must divide width")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, stream: Tensor, visible: Tensor | None = None) -> Tensor:
        """Mix the positions of each row.

        Args:
            stream: float [B, S, W].
            visible: bool [B, S], the positions that may be attended to; None: all of them.

        Returns:
            float [B, S, W]. Positions that are not visible are computed too, but no visible position reads them.
        """
        stream = stream + self._attend(self.attention_norm(stream), visible)
        return stream + self.mlp(self.mlp_norm(stream))

    def _attend(self, stream: Tensor, visible: Tensor | None) -> Tensor:
        batch, positions, width = stream.shape
        # [B, S, 3W] -> three of [B, heads, S, W / heads]
        heads = self.qkv(stream).view(batch, positions, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if visible is None else visible[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, positions, width))


def transformer_blocks(layers: int, width: int, heads: int, mlp_width: int) -> nn.ModuleList:
    """A stack of `layers` equal blocks."""
    return nn.ModuleList(TransformerBlock(width, heads, mlp_width) for _ in range(layers))


def all_visible(batch: int, positions: int, device: torch.device) -> Tensor:
    """bool [B, S]: every position may be attended to."""
    return torch.ones(batch, positions, dtype=torch.bool, device=device)
