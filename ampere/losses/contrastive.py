"""Instance-level contrastive loss: symmetric InfoNCE over the pairs page-short, page-live, short-live (section IV-B).

Letters: B rows (products) of this rank, N rows of all ranks, M domains (3), D embedding dimension.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(
    queries: Tensor,
    keys: Tensor,
    present: Tensor,
    *,
    offset: int = 0,
    temperature: float = 0.05,
    label_smoothing: float = 0.1,
) -> Tensor:
    """InfoNCE in both directions of each pair of domains, averaged over all queries of all ranks.

    For domains a, b a row that has both is a query: its a-embedding shall find its own b-embedding among the
    b-embeddings of all rows that have b. A row with b alone is thus a negative to others and no query itself.

    The loss is the rank's sum over its queries times R / Q, for R = N / B ranks and Q queries on all of them (the
    ranks may have unequal numbers). Its **mean over ranks**, and so the gradient that DDP averages, is that of one
    process with the whole batch, provided that `keys` is gathered by `ampere.losses.gather.all_gather`.

    Every row must be another product, as `ampere.training.data.ProductBatches` has them over all ranks: a row takes one
    sample of each domain, and an epoch visits a product once. So two samples of one product are a positive pair, or not
    in the batch together, and never each other's negatives; no mask is needed.

    Args:
        queries: float [B, M, D] of unit length, this rank's embeddings; rows lacking a domain hold anything finite.
        keys: float [N, M, D], the gathered embeddings; `queries` itself in a single process.
        present: bool [N, M], which rows have which domain.
        offset: row of `keys` that holds this rank's first row.
        temperature: divides the cosine similarities.
        label_smoothing: share of the target spread evenly over all keys of a query.

    Returns:
        A scalar of float32; zero where no row of any rank has two domains. Four rows of zero embeddings with all
        domains give log 4.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    rows, domains = queries.shape[:2]
    _check(queries, keys, present, offset)
    # A term of zero: every rank takes part in the backward collective of `keys`, also one without queries.
    total = 0.0 * (queries.float().sum() + keys.float().sum())
    for a in range(domains):
        for b in range(domains):
            if a == b:
                continue
            is_query = (present[:, a] & present[:, b])[offset : offset + rows]
            if not is_query.any():
                continue
            # Only present keys are kept, so smoothing spreads over them; `column` is a row's place among them.
            column = (present[:, b].cumsum(0) - 1)[offset : offset + rows]
            with torch.autocast(
                queries.device.type, enabled=False
            ):  # bfloat16 is too coarse at temperature 0.05
                logits = (
                    queries[is_query, a].float() @ keys[present[:, b], b].float().T / temperature
                )
            total = total + functional.cross_entropy(
                logits, column[is_query], reduction="sum", label_smoothing=label_smoothing
            )
    return total * (len(keys) / rows) / count_queries(present).clamp(min=1)


def count_queries(present: Tensor) -> Tensor:
    """How many (row, ordered pair of domains) there are: a row with m domains gives m * (m - 1).

    Args:
        present: bool [N, M].

    Returns:
        An int64 scalar; `[[True, True, True], [True, False, True]]` gives 6 + 2 = 8.
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
            f"queries are {list(queries.shape)}, keys {list(keys.shape)} and present {present.dtype} "
            f"{list(present.shape)}; give [B, M, D], [N, M, D] and torch.bool [N, M]"
        )
    if len(keys) % len(queries) != 0 or not 0 <= offset <= len(keys) - len(queries):
        raise ValueError(
            f"{len(queries)} queries at offset {offset} of {len(keys)} keys; the keys must hold the same number of "
            "rows of every rank, this rank's among them"
        )
