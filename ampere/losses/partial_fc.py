"""Product-level classification: CosFace softmax over the training products, class centres sharded over ranks (section
IV-B). CosFace: Wang et al. 2018, arXiv 1801.09414; PartialFC: An et al. 2021, arXiv 2010.05222, and 2022, arXiv
2203.15565.

**Sample rate.** At 1 the softmax runs over all classes. Below 1 each rank keeps, for one step, the classes of its shard
that the batch holds, and random others up to `ceil(sample_rate * S)`; the softmax runs over the kept ones of all ranks.
That saves time and the memory of the logits, and costs negatives. The gradient to the centres is then sparse: only
kept rows are updated, by the optimizer of `build_classifier_optimizer`.

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

Letters: N rows of all ranks, C classes, S classes of this rank's shard, K of them kept, D embedding dimension.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from ampere.losses.gather import rank_and_world_size

BLOCK_ROWS = 65536
"""Classes whose initial centres are drawn together; other values give other centres."""


class PartialFC(nn.Module):
    """CosFace classifier of which each rank holds the rows `first_class` to `first_class + len(centers)`.

    The shards are of ceil(C / R) classes; the last ones may be shorter, or even empty.

    To save without all centres in one place, each rank saves its own `centers` with `first_class`; any number of ranks
    take them up, each by `load_rows` with the saved rows (ampere.training.state). `generator` is not saved: whoever
    wants the same draws again seeds it before each step, as the training loop does.

    Args:
        num_classes: C, over all ranks.
        dim: D.
        scale: factor on the cosines.
        margin: taken off the target's cosine.
        sample_rate: share of the classes that a step's softmax runs over, in (0, 1].
        seed: of the initial centres, the same for any number of ranks, and of the draws, a different stream per rank.

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
                f"sample_rate is {sample_rate}; give a share of the classes above 0, up to 1 for all"
            )
        rank, self.world_size = rank_and_world_size()
        self.num_classes, self.scale, self.margin, self.sample_rate = (
            num_classes,
            scale,
            margin,
            sample_rate,
        )
        self.shard_size = -(-num_classes // self.world_size)
        self.first_class = min(rank * self.shard_size, num_classes)
        end_class = min(self.first_class + self.shard_size, num_classes)
        self.generator = _generator(seed, -1 - rank)
        self.centers = nn.Parameter(torch.empty(end_class - self.first_class, dim))
        for block in range(self.first_class // BLOCK_ROWS, -(-end_class // BLOCK_ROWS)):
            start = block * BLOCK_ROWS
            rows = min(
                BLOCK_ROWS, num_classes - start
            )  # a whole block on every rank that has a part of it
            self.load_rows(start, 0.01 * torch.randn(rows, dim, generator=_generator(seed, block)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled rows. A collective: all ranks call it with the same arguments.

        Below a sample rate of 1 every call draws anew, and gives `centers` a sparse gradient of the K kept rows.

        Args:
            embeddings: float [N, D], of all ranks; unlabelled rows hold anything finite.
            labels: int64 [N], classes of all ranks' numbering; -1 leaves a row out.

        Returns:
            A scalar of float32; zero if no row is labelled. One backward pass at most: it overwrites what was saved.

        Raises:
            ValueError: a label is outside -1..C-1.
        """
        if labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; "
                f"they must be -1 (no class) or in 0..{self.num_classes - 1}"
            )
        columns = labels - self.first_class
        rows = ((labels >= 0) & (columns >= 0) & (columns < len(self.centers))).nonzero().squeeze(1)
        columns = columns[rows]
        centers: Tensor = self.centers
        if self.sample_rate < 1:
            kept = self._draw(columns)
            columns = torch.searchsorted(kept, columns)
            centers = functional.embedding(kept, self.centers, sparse=True)
        with torch.autocast(
            embeddings.device.type, enabled=False
        ):  # bfloat16 is too coarse at scale 64
            directions = functional.normalize(
                _ScaleGradient.apply(embeddings.float(), self.world_size), dim=-1
            )
            return _ShardedCrossEntropy.apply(
                self.scale * directions,
                functional.normalize(centers.float(), dim=-1),
                (rows, columns),
                labels >= 0,
                self.scale * self.margin,
            )

    def load_rows(self, first_class: int, centers: Tensor) -> None:
        """Take what this rank holds of the centres of classes `first_class`, `first_class + 1`, ...; maybe nothing.

        With 5 classes on 2 ranks, rank 1 holds the classes 3 and 4: `load_rows(2, centers)` takes `centers[1:3]`.

        Args:
            first_class: class of the first row, in all ranks' numbering.
            centers: float [rows, D].

        Raises:
            ValueError: the rows are not of D numbers, or are of classes outside 0..C-1.
        """
        shape, dim = list(centers.shape), self.centers.shape[1]
        if shape[1:] != [dim] or not 0 <= first_class <= self.num_classes - len(centers):
            raise ValueError(
                f"centres are {shape} from class {first_class} on; "
                f"give [rows, {dim}], of classes in 0..{self.num_classes - 1}"
            )
        start = max(first_class, self.first_class)
        end = max(start, min(first_class + len(centers), self.first_class + len(self.centers)))
        own = centers[start - first_class : end - first_class]
        with torch.no_grad():
            self.centers[start - self.first_class :][: len(own)] = own

    def _draw(self, positives: Tensor) -> Tensor:
        """Ascending rows of `centers` to keep, int64 [K]: all `positives`, int64, and random others."""
        # Drawn on the CPU: the same classes on any device.
        priority = torch.rand(len(self.centers), generator=self.generator).to(positives.device)
        priority[positives] = 1.0  # above all that rand gives
        size = max(math.ceil(self.sample_rate * len(priority)), len(positives.unique()))
        return priority.topk(size, sorted=False).indices.sort().values


def build_classifier_optimizer(classifier: PartialFC, lr: float) -> torch.optim.Optimizer:
    """Adam for the centres, without decay.

    Below a sample rate of 1 it is SparseAdam, which leaves rows that a step did not keep, and their moments, as they
    are. Its bias correction counts all steps, not those of a row: a row first kept late moves by up to
    (1 - beta1) / sqrt(1 - beta2) = 3.2 times `lr` in that step.

    Args:
        classifier: of this rank.
        lr: learning rate, above 0.
    """
    if classifier.sample_rate < 1:
        return torch.optim.SparseAdam([classifier.centers], lr=lr)
    return torch.optim.AdamW([classifier.centers], lr=lr, weight_decay=0.0)


def _generator(seed: int, stream: int) -> torch.Generator:
    """Independent streams of one seed; stream 0 is the seed's own."""
    # An odd factor tells all streams apart within the 32 bits to which torch's generator cuts a seed.
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
    """Mean of -log softmax at the target over the counted rows, the classes spread over ranks.

    Takes queries float [N, D] and keys float [K, D], whose products are the logits, the (row, key) indices of the
    targets among these keys, counted bool [N], and the margin that is taken off the target's logit. The backward pass
    gives this rank's part of the gradient to the queries, and the gradient to its keys, without communication.

    The logits are by far the largest tensor, so they are made here and turned in place into probabilities, then into
    their own gradient: [N, K] numbers are held once, from the forward pass to the backward pass.
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
        gradient.mul_(
            grads[0]
        )  # a second backward pass raises, as autograd sees that a saved tensor has changed
        return gradient @ keys, gradient.T @ queries, None, None, None


def _all_reduce(tensor: Tensor, op: Any) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(tensor, op=op)
    return tensor
