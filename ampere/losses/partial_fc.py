"""Product-level classification: CosFace softmax over all training products, class centres sharded over ranks (section
IV-B; PartialFC with sample rate 1).

**How the gradients combine.** With R ranks, a model in DistributedDataParallel and this module outside it:

    embeddings = all_gather(local_embeddings)        # ampere.losses.gather
    loss = contrastive_loss(...) + weight * pfc(embeddings, labels)
    loss.backward()

- The value is the whole batch's mean loss, equal on all ranks.
- `centers.grad` is that of `weight * value`: complete, neither summed nor averaged over ranks. Never reduce it.
- Through its own shard a rank sees only its part of the gradient to the embeddings; the backward pass of `all_gather`
  sums the parts, and DDP then divides by R. So the gradient to the embeddings is scaled by R here, and the model's
  parameters end up with the gradient of `weight * value`, as in one process.
- A global gradient norm needs the centres' squared norms summed over ranks, and the model's counted once.

Letters: N rows of all ranks, C classes, S classes of this rank's shard, D embedding dimension.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from ampere.losses.gather import all_gather, rank_and_world_size


class PartialFC(nn.Module):
    """CosFace classifier of which each rank holds the rows `first_class` to `first_class + len(centers)`.

    The shards are of ceil(C / R) classes; the last ones may be shorter, or even empty.

    Args:
        num_classes: C, over all ranks.
        dim: D.
        scale: factor on the cosines.
        margin: taken off the target's cosine.
        seed: of the initial centres, which are the same for any number of ranks.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 64.0, margin: float = 0.4, seed: int = 0) -> None:
        super().__init__()
        rank, self.world_size = rank_and_world_size()
        self.num_classes, self.scale, self.margin = num_classes, scale, margin
        self.shard_size = -(-num_classes // self.world_size)
        self.first_class = min(rank * self.shard_size, num_classes)
        centers = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(seed))
        self.centers = nn.Parameter(torch.empty_like(self._own(centers)))
        self.load_full_centers(0.01 * centers)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled rows. A collective: all ranks call it with the same arguments.

        Args:
            embeddings: float [N, D], of all ranks; unlabelled rows hold anything finite.
            labels: int64 [N], classes of all ranks' numbering; -1 leaves a row out.

        Returns:
            A scalar of float32; zero if no row is labelled.

        Raises:
            ValueError: a label is outside -1..C-1.
        """
        if labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; "
                f"they must be -1 (no class) or in 0..{self.num_classes - 1}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):  # bfloat16 is too coarse at scale 64
            directions = functional.normalize(_ScaleGradient.apply(embeddings.float(), self.world_size), dim=-1)
            logits = self.scale * directions @ functional.normalize(self.centers.float(), dim=-1).T
        columns = labels - self.first_class
        rows = ((labels >= 0) & (columns >= 0) & (columns < len(self.centers))).nonzero().squeeze(1)
        targets = (rows, columns[rows])
        logits[targets] -= self.scale * self.margin
        return _ShardedCrossEntropy.apply(logits, targets, labels >= 0)

    def full_centers(self) -> Tensor:
        """The centres of all ranks, [C, D], detached: what a checkpoint keeps. A collective."""
        padded = functional.pad(self.centers.detach(), (0, 0, 0, self.shard_size - len(self.centers)))
        return all_gather(padded)[: self.num_classes]

    def load_full_centers(self, centers: Tensor) -> None:
        """Take this rank's rows of [C, D] centres, which any number of ranks may have saved.

        Raises:
            ValueError: there are not `num_classes` centres.
        """
        if len(centers) != self.num_classes:
            raise ValueError(f"there are {len(centers)} centres; this classifier has {self.num_classes} classes")
        with torch.no_grad():
            self.centers.copy_(self._own(centers))

    def _own(self, rows: Tensor) -> Tensor:
        return rows[self.first_class : self.first_class + self.shard_size]


class _ScaleGradient(torch.autograd.Function):
    """Identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * grads[0], None


class _ShardedCrossEntropy(torch.autograd.Function):
    """Mean of -log softmax at the target over the counted rows, the columns of the logits spread over ranks.

    Takes logits float [N, S], the (row, column) indices of the targets in this shard, and counted bool [N].
    The backward pass gives the gradient to this shard's logits, and needs no communication.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: tuple[Tensor, Tensor], counted: Tensor) -> Tensor:
        lowest = logits.new_full((len(logits), 1), -torch.inf)  # gives an empty shard a maximum
        maximum = _all_reduce(torch.cat([logits, lowest], dim=1).amax(dim=1), dist.ReduceOp.MAX)
        softmax = torch.exp(logits - maximum[:, None])
        sums = _all_reduce(softmax.sum(dim=1), dist.ReduceOp.SUM)
        target_logits = torch.zeros_like(sums).index_put((targets[0],), logits[targets])
        target_logits = _all_reduce(target_logits, dist.ReduceOp.SUM)
        weights = counted / counted.sum().clamp(min=1)
        gradient = softmax.div_(sums[:, None])
        gradient[targets] -= 1
        ctx.save_for_backward(gradient.mul_(weights[:, None]))
        return ((sums.log() + maximum - target_logits) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient, None, None


def _all_reduce(tensor: Tensor, op: Any) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(tensor, op=op)
    return tensor
