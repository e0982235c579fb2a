"""A differentiable all-gather.

torch.distributed.nn.functional.all_gather does the same, but warns that it is deprecated.

Letters: B rows of this rank, R ranks.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of ranks; (0, 1) outside torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate a tensor of all ranks along its first dimension, in rank order.

    The gradient of `tensor` is the **sum** over ranks of the gradients of their losses, so the
    backward pass is a collective: every rank's loss must depend on the result, if only by a term of
    zero.

    Args:
        tensor: [B, ...], of equal shape and dtype on every rank.

    Returns:
        [R * B, ...]; outside torch.distributed, the tensor itself.
    """
    return _AllGather.apply(tensor) if dist.is_initialized() else tensor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
