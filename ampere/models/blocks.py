"""Pre-norm Transformer blocks of the temporal and fusion stacks (paper, III-B, III-D, IV-E).

Letters: B batch, S positions of the stream, C positions of a context, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TransformerBlock(nn.Module):
    """Multi-head attention and an MLP, each after a LayerNorm and inside a residual.

    Args:
        width: W.
        heads: attention heads; must divide `width`.
        mlp_width: width of the MLP's hidden layer.
        cross: the stream attends to itself and then to a context, by the same weights; the context
            has a LayerNorm of its own. COPE's public block shares them, too. With its own weights
            for either, a block would have a third more than the paper counts (table IX).

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, *, cross: bool = False) -> None:
        super().__init__()
        if width % heads != 0:
            raise ValueError(f"width is {width} and heads is {heads}; heads must divide width")
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
        self,
        stream: Tensor,
        visible: Tensor | None = None,
        context: Tensor | None = None,
        context_visible: Tensor | None = None,
    ) -> Tensor:
        """Mix the positions of each row.

        Args:
            stream: float [B, S, W].
            visible: bool [B, S], positions that may be attended to; None: all.
            context: float [B, C, W], what a `cross` block attends to; it requires one.
            context_visible: bool [B, C], as `visible`.

        Returns:
            float [B, S, W]. Hidden positions are computed too, but no visible position reads them.
        """
        normalized = self.attention_norm(stream)
        stream = stream + self._attend(normalized, normalized, visible)
        if self.context_norm is not None:
            assert context is not None
            keys = self.context_norm(context)
            stream = stream + self._attend(self.attention_norm(stream), keys, context_visible)
        return stream + self.mlp(self.mlp_norm(stream))

    def _attend(self, queries: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
        """Attention of queries [B, S, W] over keys [B, C, W]; self-attention if they are one."""
        if keys is queries:
            q, k, v = self.qkv(queries).chunk(3, dim=-1)
        else:
            width = queries.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            q = functional.linear(queries, weight[:width], bias[:width])
            k, v = functional.linear(keys, weight[width:], bias[width:]).chunk(2, dim=-1)
        mask = None if visible is None else visible[:, None, None, :]
        # [B, S, W] -> [B, heads, S, W / heads]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))


def transformer_blocks(
    layers: int, width: int, heads: int, mlp_width: int, *, cross: bool = False
) -> nn.ModuleList:
    """A stack of `layers` blocks of equal size."""
    return nn.ModuleList(
        TransformerBlock(width, heads, mlp_width, cross=cross) for _ in range(layers)
    )


def all_visible(batch: int, positions: int, device: torch.device) -> Tensor:
    """Mask that hides nothing: bool [B, S], all True."""
    return torch.ones(batch, positions, dtype=torch.bool, device=device)
