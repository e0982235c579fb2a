"""Instance-level contrastive loss: symmetric InfoNCE over pairs of domains (paper, IV-B).

The pairs are page-short, page-live and short-live.

Letters: B rows (products) of this rank, N rows of all R ranks, M domains (3), D embedding
dimension.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(
    queries: Tensor,
    keys: Tensor,
    present: Tensor,
    *,
    asks: Tensor | None = None,
    offset: int = 0,
    temperature: float = 0.05,
    label_smoothing: float = 0.1,
) -> Tensor:
    """InfoNCE in both directions of each pair of domains, averaged over the queries of all ranks.

    For domains a and b, every row that has both is a query: its embedding in a should retrieve its
    own embedding in b among those of all rows that have b. A row that has only b is a negative for
    the others, and not a query.

    The returned value is the sum over this rank's queries times R / Q, for Q queries on all ranks,
    which may have unequal numbers of them. Its **mean over ranks**, and so the gradient that DDP
    averages, equals that of one process with the whole batch, provided that `keys` is gathered by
    `ampere.losses.gather.all_gather`.

    Every row must be a different product, which `ampere.training.data.ProductBatches` guarantees
    over all ranks: a row has at most one sample per domain, and an epoch visits a product once. Two
    samples of one product are thus either a positive pair or in different batches, never negatives
    of each other, and no mask is needed.

    Args:
        queries: float [B, M, D] of unit length, this rank's embeddings. Where a row has no sample
            of a domain, any finite values.
        keys: float [N, M, D], the gathered embeddings; `queries` itself in a single process.
        present: bool [N, M], which rows have which domain.
        asks: bool [B, M], which of this rank's embeddings are queries; the others count as queries
            with a loss of zero. None: all that are present.
        offset: index in `keys` of this rank's first row.
        temperature: divides the cosine similarities.
        label_smoothing: share of the target that is spread evenly over all keys of a query.

    Returns:
        A float32 scalar; zero if no row of any rank has two domains. Four rows of zero embeddings
        with all domains give log 4.

    Raises:
        ValueError: the shapes do not match.
    """
    rows, domains = queries.shape[:2]
    _check(queries, keys, present, offset)
    # A term of zero, so that ranks without queries also join the backward collective of `keys`.
    total = 0.0 * (queries.float().sum() + keys.float().sum())
    for a in range(domains):
        for b in range(domains):
            if a == b:
                continue
            is_query = (present[:, a] & present[:, b])[offset : offset + rows]
            if asks is not None:
                is_query = is_query & asks[:, a]
            if not is_query.any():
                continue
            # Rows without b are not keys, so smoothing does not spread to them. `target` is
            # each row's position among the keys.
            target = (present[:, b].cumsum(0) - 1)[offset : offset + rows]
            # No autocast: bfloat16 is too coarse at temperature 0.05.
            with torch.autocast(queries.device.type, enabled=False):
                similarities = queries[is_query, a].float() @ keys[present[:, b], b].float().T
                logits = similarities / temperature
            total = total + functional.cross_entropy(
                logits, target[is_query], reduction="sum", label_smoothing=label_smoothing
            )
    return total * (len(keys) / rows) / count_queries(present).clamp(min=1)


def count_queries(present: Tensor) -> Tensor:
    """Number of queries: a row with m domains has m * (m - 1) ordered pairs of domains.

    Args:
        present: bool [N, M].

    Returns:
        int64 scalar. `[[True, True, True], [True, False, True]]` gives 6 + 2 = 8.
    """
    counts = present.sum(dim=1)
    return (counts * (counts - 1)).sum()


def _check(queries: Tensor, keys: Tensor, present: Tensor, offset: int) -> None:
    if (
        queries.shape[1:] != keys.shape[1:]
        or present.shape != keys.shape[:2]
        or present.dtype != torch.bool
    ):
        raise ValueError(
            f"shapes do not match: queries {list(queries.shape)}, keys {list(keys.shape)}, present "
            f"{present.dtype} {list(present.shape)}; expected [B, M, D], [N, M, D] and "
            "torch.bool [N, M]"
        )
    if len(keys) % len(queries) != 0 or not 0 <= offset <= len(keys) - len(queries):
        raise ValueError(
            f"{len(queries)} queries at offset {offset} of {len(keys)} keys; expected keys with as "
            "many rows from every rank, including this one's"
        )
