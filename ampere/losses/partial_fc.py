"""Product-level classification: CosFace softmax over the training products (paper, IV-B).

The class centers are sharded over ranks. CosFace: Wang et al. 2018, arXiv 1801.09414; PartialFC: An
et al. 2021, arXiv 2010.05222, and 2022, arXiv 2203.15565.

**Sample rate.** At 1 the softmax runs over all classes. Below 1 each rank selects, for one step,
the classes of its shard that the batch contains, and random others up to `ceil(sample_rate * S)`;
the softmax runs over the selected classes of all ranks. This saves time and the memory of the
logits, at the cost of negatives. The gradient of the centers is then sparse: the optimizer of
`build_classifier_optimizer` updates only selected rows.

**How the gradients combine.** With R ranks, a model in DistributedDataParallel and this module
outside it:

    embeddings = all_gather(local_embeddings)        # ampere.losses.gather
    loss = contrastive_loss(...) + weight * pfc(embeddings, labels)
    loss.backward()

- The value is the whole batch's mean loss, equal on all ranks.
- `centers.grad` is the gradient of `weight * value`: complete, neither summed nor averaged over
  ranks. Never reduce it.
- From its own shard, a rank gets only its part of the embeddings' gradient. The backward pass of
  `all_gather` sums the parts, and DDP then divides by R. The gradient of the embeddings is
  therefore scaled by R here, and the model's parameters get the gradient of `weight * value`, as
  in one process.
- For a global gradient norm, sum the centers' squared norms over ranks, and count the model's once.

Letters: N rows of all ranks, C classes, S classes of this rank's shard, K of them selected, D
embedding dimension.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from ampere.losses.gather import rank_and_world_size

BLOCK_ROWS = 65536
"""Number of classes whose initial centers are drawn together; changing it changes the centers."""


class PartialFC(nn.Module):
    """CosFace classifier, of which each rank holds a shard of the class centers.

    A shard has ceil(C / R) classes, from `first_class` on; the last shards may be shorter or empty.

    To save all centers without gathering them, each rank saves its own `centers` and
    `first_class`; any number of ranks can load them, each by `load_rows` with the saved rows
    (`ampere.training.state`). `generator` is not saved: to repeat the same draws, seed it before
    each step, as the training loop does.

    Args:
        num_classes: C, over all ranks.
        dim: D.
        scale: factor of the cosines.
        margin: subtracted from the target's cosine.
        sample_rate: share of the classes that a step's softmax runs over, in (0, 1].
        seed: of the initial centers, which are the same for any number of ranks, and of the draws,
            which differ between ranks.

    Raises:
        ValueError: `sample_rate` is outside (0, 1].
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        sample_rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise ValueError(
                f"sample_rate is {sample_rate}; expected a share of the classes in (0, 1]"
            )
        rank, self.world_size = rank_and_world_size()
        self.num_classes, self.sample_rate = num_classes, sample_rate
        self.scale, self.margin = scale, margin
        self.shard_size = -(-num_classes // self.world_size)
        self.first_class = min(rank * self.shard_size, num_classes)
        end_class = min(self.first_class + self.shard_size, num_classes)
        self.generator = _generator(seed, -1 - rank)
        self.centers = nn.Parameter(torch.empty(end_class - self.first_class, dim))
        for block in range(self.first_class // BLOCK_ROWS, -(-end_class // BLOCK_ROWS)):
            # A rank that has part of a block draws the whole block, so that draws do not depend on
            # the number of ranks.
            start = block * BLOCK_ROWS
            rows = min(BLOCK_ROWS, num_classes - start)
            self.load_rows(start, 0.01 * torch.randn(rows, dim, generator=_generator(seed, block)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labeled rows.

        A collective: all ranks call it with the same arguments. Below a sample rate of 1, every
        call draws again and gives `centers` a sparse gradient of the K selected rows. Only one
        backward pass is possible, as it overwrites saved tensors.

        Args:
            embeddings: float [N, D], of all ranks; unlabeled rows may have any finite values.
            labels: int64 [N], class numbers over all ranks; -1 excludes a row.

        Returns:
            float32 scalar; zero if no row is labeled.

        Raises:
            ValueError: a label is outside -1..C-1.
        """
        if labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels range from {int(labels.min())} to {int(labels.max())}; "
                f"expected -1 (no class) or 0..{self.num_classes - 1}"
            )
        columns = labels - self.first_class
        in_shard = (labels >= 0) & (columns >= 0) & (columns < len(self.centers))
        rows = in_shard.nonzero().squeeze(1)
        columns = columns[rows]
        centers: Tensor = self.centers
        if self.sample_rate < 1:
            selected = self._select(columns)
            columns = torch.searchsorted(selected, columns)
            centers = functional.embedding(selected, self.centers, sparse=True)
        # No autocast: bfloat16 is too coarse at scale 64.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = _ScaleGradient.apply(embeddings.float(), self.world_size)
            return _ShardedCrossEntropy.apply(
                self.scale * functional.normalize(embeddings, dim=-1),
                functional.normalize(centers.float(), dim=-1),
                (rows, columns),
                labels >= 0,
                self.scale * self.margin,
            )

    def load_rows(self, first_class: int, centers: Tensor) -> None:
        """Load the centers of classes `first_class`, `first_class + 1`, ... that this rank holds.

        There may be none. With 5 classes on 2 ranks, rank 1 holds the classes 3 and 4:
        `load_rows(2, centers)` loads `centers[1:3]`.

        Args:
            first_class: class of the first row, numbered over all ranks.
            centers: float [rows, D].

        Raises:
            ValueError: rows do not have D numbers, or are of classes outside 0..C-1.
        """
        shape, dim = list(centers.shape), self.centers.shape[1]
        if shape[1:] != [dim] or not 0 <= first_class <= self.num_classes - len(centers):
            raise ValueError(
                f"centers are {shape} from class {first_class} on; "
                f"expected [rows, {dim}] of classes in 0..{self.num_classes - 1}"
            )
        start = max(first_class, self.first_class)
        end = max(start, min(first_class + len(centers), self.first_class + len(self.centers)))
        own = centers[start - first_class : end - first_class]
        with torch.no_grad():
            self.centers[start - self.first_class :][: len(own)] = own

    def _select(self, positives: Tensor) -> Tensor:
        """Select rows of `centers` for a step: all positives, and random others.

        Args:
            positives: int64, rows of classes that the batch contains.

        Returns:
            int64 [K], ascending.
        """
        # Drawn on the CPU: the same classes on any device.
        priority = torch.rand(len(self.centers), generator=self.generator).to(positives.device)
        priority[positives] = 1.0  # above all values of rand
        size = max(math.ceil(self.sample_rate * len(priority)), len(positives.unique()))
        return priority.topk(size, sorted=False).indices.sort().values


def build_classifier_optimizer(classifier: PartialFC, lr: float) -> torch.optim.Optimizer:
    """Adam for the centers, without weight decay.

    Below a sample rate of 1 it is SparseAdam, which does not change unselected rows and their
    moments. Its bias correction counts all steps, not those of a row: a row that is first selected
    late moves by up to (1 - beta1) / sqrt(1 - beta2) = 3.2 times `lr` in that step.

    Args:
        classifier: this rank's.
        lr: learning rate, above 0.
    """
    if classifier.sample_rate < 1:
        return torch.optim.SparseAdam([classifier.centers], lr=lr)
    return torch.optim.AdamW([classifier.centers], lr=lr, weight_decay=0.0)


def _generator(seed: int, stream: int) -> torch.Generator:
    """Independent streams of one seed; stream 0 is the seed's own."""
    # torch's generator truncates seeds to 32 bits; an odd factor keeps all streams distinct there.
    return torch.Generator().manual_seed((seed + stream * 0x9E3779B1) % 2**32)


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
    """Mean of -log softmax at the target over the counted rows, with classes sharded over ranks.

    Takes queries float [N, D] and keys float [K, D], whose products are the logits; the (row, key)
    indices of the targets among these keys; counted, bool [N]; and the margin that is subtracted
    from the target's logit. The backward pass gives this rank's part of the queries' gradient and
    the gradient of its keys, without communication.

    The logits are by far the largest tensor. They are turned in place into probabilities, then into
    their own gradient, so that [N, K] numbers are held only once from forward to backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        targets: tuple[Tensor, Tensor],
        counted: Tensor,
        margin: float,
    ) -> Tensor:
        logits = queries @ keys.T
        logits[targets] -= margin
        maximum = logits.amax(dim=1) if len(keys) else logits.new_full((len(logits),), -torch.inf)
        maximum = _all_reduce(maximum, dist.ReduceOp.MAX)
        target_logits = torch.zeros_like(maximum).index_put((targets[0],), logits[targets])
        target_logits = _all_reduce(target_logits, dist.ReduceOp.SUM)
        softmax = logits.sub_(maximum[:, None]).exp_()
        sums = _all_reduce(softmax.sum(dim=1), dist.ReduceOp.SUM)
        weights = counted / counted.sum().clamp(min=1)
        gradient = softmax.div_(sums[:, None])
        gradient[targets] -= 1
        ctx.save_for_backward(gradient.mul_(weights[:, None]), queries, keys)
        return ((sums.log() + maximum - target_logits) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        gradient, queries, keys = ctx.saved_tensors
        # In place: autograd then raises on a second backward pass, as a saved tensor has changed.
        gradient.mul_(grads[0])
        return gradient @ keys, gradient.T @ queries, None, None, None


def _all_reduce(tensor: Tensor, op: Any) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(tensor, op=op)
    return tensor
