"""The pre-norm Transformer blocks of the temporal and the fusion stacks (paper, sections III-B, III-D and IV-E).

Letters: B batch, S positions, C positions of a context, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TransformerBlock(nn.Module):
    """Multi-head attention and an MLP, each after a LayerNorm and inside a residual.

    Args:
        width: W, of the stream.
        heads: attention heads; must divide `width`.
        mlp_width: of the hidden layer.
        cross: the stream attends to a context instead of itself; the context has a LayerNorm of its own.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, *, cross: bool = False) -> None:
        super().__init__()
        if width % heads != 0:
            raise ValueError(f"width is {width} and heads {heads}; heads must divide width")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width) if cross else None
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width)
        )

    def forward(
        self, stream: Tensor, visible: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Mix the positions of each row.

        Args:
            stream: float [B, S, W].
            visible: bool, the positions that may be attended to: [B, S], or [B, C] of a block with context; None: all.
            context: float [B, C, W], what a `cross` block attends to.

        Returns:
            float [B, S, W]. Positions that are not visible are computed too, but no visible position reads them.
        """
        normed = self.attention_norm(stream)
        read = (
            normed if self.context_norm is None or context is None else self.context_norm(context)
        )
        stream = stream + self._attend(normed, read, visible)
        return stream + self.mlp(self.mlp_norm(stream))

    def _attend(self, stream: Tensor, read: Tensor, visible: Tensor | None) -> Tensor:
        if read is stream:
            query, key, value = self.qkv(stream).chunk(3, dim=-1)
        else:
            width = stream.shape[-1]
            query = functional.linear(stream, self.qkv.weight[:width], self.qkv.bias[:width])
            key, value = functional.linear(
                read, self.qkv.weight[width:], self.qkv.bias[width:]
            ).chunk(2, dim=-1)
        mask = None if visible is None else visible[:, None, None, :]
        # [B, S, W] -> [B, heads, S, W / heads]
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))


def transformer_blocks(
    layers: int, width: int, heads: int, mlp_width: int, *, cross: bool = False
) -> nn.ModuleList:
    """A stack of `layers` equal blocks."""
    return nn.ModuleList(
        TransformerBlock(width, heads, mlp_width, cross=cross) for _ in range(layers)
    )


def all_visible(batch: int, positions: int, device: torch.device) -> Tensor:
    """bool [B, S]: every position may be attended to."""
    return torch.ones(batch, positions, dtype=torch.bool, device=device)
