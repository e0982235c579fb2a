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
        cross: the stream attends to a context instead of itself; the context has its own
            LayerNorm.

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
        self, stream: Tensor, visible: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Mix the positions of each row.

        Args:
            stream: float [B, S, W].
            visible: bool, positions that may be attended to: [B, S], or [B, C] with a context;
                None: all.
            context: float [B, C, W], what a `cross` block attends to.

        Returns:
            float [B, S, W]. Hidden positions are computed too, but no visible position reads them.
        """
        queries = self.attention_norm(stream)
        if self.context_norm is None or context is None:
            stream = stream + self._attend(queries, queries, visible)
        else:
            stream = stream + self._attend(queries, self.context_norm(context), visible)
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
