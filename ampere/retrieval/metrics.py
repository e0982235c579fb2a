"""Ranks and measures of cross-domain retrieval with several relevant items per query.

The measures are those of the paper, section IV-A: R@k, MRR and mAP. They are computed here, and not
by ranx or ir-measures, for two reasons. Catalogs hold equal images, so exact ties are common, and
they must rank alike in every run, chunk and device: here in gallery order. Those libraries take
scores and break ties by rules of their own, such as trec_eval's, by document id. They also take a
scored list per query: 31,000 queries in a gallery of 31,000 are 10^9 entries. Here only the ranks
of the relevant items are stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain

CHUNK = 128  # queries at once
GRID = 2.0**23
CUTOFFS = (1, 5, 10)
MEASURES = (*(f"R{k}" for k in CUTOFFS), "MRR", "mAP")
# Query domain to gallery domain, in the order of the paper's tables.
TASKS = {
    "P2S": (Domain.PAGE, Domain.SHORT),
    "P2L": (Domain.PAGE, Domain.LIVE),
    "S2P": (Domain.SHORT, Domain.PAGE),
    "S2L": (Domain.SHORT, Domain.LIVE),
    "L2P": (Domain.LIVE, Domain.PAGE),
    "L2S": (Domain.LIVE, Domain.SHORT),
}


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Embeddings of one domain.

    Attributes:
        vectors: float32 [N, D], of length 1.
        products: str [N], the product of each row.
        groups: by name of a grouping, the group of each row, str [N].
        samples: str [N], sample ids of the rows; empty if unknown.
    """

    vectors: NDArray[np.float32]
    products: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    samples: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U1"))


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the A queries of a task that have a relevant item in the gallery.

    Attributes:
        rows: int64 [A], their row numbers among all queries.
        first: int64 [A], rank of the first relevant item, from 0.
        precision: float64 [A], average precision: the mean over the relevant items of the precision
            at their rank.
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    precision: NDArray[np.float64]

    def values(self) -> NDArray[np.float64]:
        """Return `MEASURES` of each query in percent, float64 [A, measures]."""
        recalls = [self.first < k for k in CUTOFFS]
        return 100 * np.stack([*recalls, 1 / (self.first + 1), self.precision], axis=1)


def rank_queries(
    queries: Vectors, gallery: Vectors, chunk: int = CHUNK, device: str | None = None
) -> Ranking:
    """Rank the gallery by exact search for every query that has a relevant item in it.

    A gallery item is relevant if it has the query's product. Items of equal similarity are ranked
    in gallery order, so the result is the same in every run and on every device. Memory is `chunk`
    x gallery similarities of float64, 32 MB for 31,000 items; five times that on a torch device.

    Args:
        device: torch device to rank on; None: numpy on the CPU.

    Raises:
        ValueError: a vector is not finite; comparisons with NaN would rank every relevant item
            first.
    """
    for name, given in (("query", queries), ("gallery", gallery)):
        if invalid := np.count_nonzero(~np.isfinite(given.vectors).all(axis=1)):
            raise ValueError(
                f"{invalid} of {len(given.vectors)} {name} vectors are not finite; embed them again"
            )
    _, codes = np.unique(np.concatenate([queries.products, gallery.products]), return_inverse=True)
    query_codes, gallery_codes = np.split(codes, [len(queries.products)])
    by_product = np.argsort(gallery_codes, kind="stable")
    starts, stops = (
        np.searchsorted(gallery_codes[by_product], query_codes, side) for side in ("left", "right")
    )
    rows = np.flatnonzero(stops > starts)
    relevant = [
        by_product[start:stop] for start, stop in zip(starts[rows], stops[rows], strict=True)
    ]
    ranks_by_query: Iterator[NDArray[np.int64]]
    if device is None:
        ranks_by_query = (
            relevant_ranks(similarity, relevant[at])
            for at, similarity in similarities(queries.vectors[rows], gallery.vectors, chunk)
        )
    else:
        ranks_by_query = relevant_ranks_on_device(
            device, queries.vectors[rows], gallery.vectors, relevant, chunk
        )
    first, precision = np.empty(len(rows), np.int64), np.empty(len(rows), np.float64)
    for at, ranks in enumerate(ranks_by_query):
        first[at] = ranks[0]
        precision[at] = np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))
    return Ranking(rows=rows, first=first, precision=precision)


def relevant_ranks(
    similarity: NDArray[np.float32], relevant: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the ranks of the relevant items, ascending from 0; ties are ranked in gallery order.

    The order is 0.9, 0.7, and then the two items of 0.5, of which the last is relevant:

    >>> relevant_ranks(np.array([0.9, 0.5, 0.7, 0.5], np.float32), np.array([2, 3])).tolist()
    [1, 3]

    Args:
        similarity: float32 [G], of the query to each gallery item.
        relevant: int64 [R], row numbers of the relevant items.
    """
    own, ascending = similarity[relevant], np.sort(similarity)
    not_above = np.searchsorted(ascending, own, "right")
    ranks = len(similarity) - not_above
    for at in np.flatnonzero(not_above - np.searchsorted(ascending, own, "left") > 1):
        ranks[at] += np.count_nonzero(similarity[: relevant[at]] == own[at])
    return np.sort(ranks)


def relevant_ranks_on_device(
    device: str,
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    relevant: Sequence[NDArray[np.int64]],
    chunk: int,
) -> Iterator[NDArray[np.int64]]:
    """Yield `relevant_ranks` of each query, computed with torch for `chunk` queries at once.

    A stable sort gives the items best first; the inverse of that permutation gives the rank of each
    item. Similarities 0.5, 0.9, 0.7 have the order 1, 2, 0, so the items' ranks are 2, 0, 1. The
    float64 products are exact, so the ranks are those of the CPU to the last bit; see
    `similarities`. On a CPU this takes five times as long, since stable sorts are slow there.

    Args:
        device: torch device.
        queries: float32 [A, D].
        gallery: float32 [G, D].
        relevant: for each query the row numbers of its relevant items.
    """
    import torch

    items = torch.from_numpy(_on_grid(gallery)).to(device).T
    all_ranks = torch.arange(len(gallery), device=device).expand(chunk, -1)
    for start in range(0, len(queries), chunk):
        batch = torch.from_numpy(_on_grid(queries[start : start + chunk])).to(device)
        order = (batch @ items).float().argsort(dim=1, descending=True, stable=True)
        rank_of_item = torch.empty_like(order).scatter_(1, order, all_ranks[: len(batch)])
        columns = relevant[start : start + chunk]
        counts = [len(column) for column in columns]
        lines = np.repeat(np.arange(len(batch)), counts)
        ranks = rank_of_item[torch.from_numpy(lines), torch.from_numpy(np.concatenate(columns))]
        for of_query in np.split(ranks.cpu().numpy(), np.cumsum(counts)[:-1]):
            yield np.sort(of_query)


def similarities(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], chunk: int = CHUNK
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield each query's number and its similarities to the gallery, float32 [G].

    They are computed for `chunk` queries at once. The last bits of a float32 product depend on
    where in the matrix an item is, so that equal items would not tie. With entries rounded to
    multiples of 2^-23 the float64 product is exact: equal items have equal similarities, with any
    chunk.
    """
    items = _on_grid(gallery).T
    for start in range(0, len(queries), chunk):
        product = _on_grid(queries[start : start + chunk]) @ items
        yield from ((at, row.astype(np.float32)) for at, row in enumerate(product, start))


def _on_grid(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round entries to multiples of 1 / `GRID`."""
    return np.rint(vectors.astype(np.float64) * GRID) / GRID


def chance_recall_at_1(queries: Vectors, gallery: Vectors) -> float:
    """Return R@1 in percent of a random ranking; NaN if no query has a relevant item.

    It is the mean share of relevant items in the gallery, over the queries that have one.
    """
    products, counts = np.unique(gallery.products, return_counts=True)
    share = dict(zip(products, counts / max(1, len(gallery.products)), strict=True))
    shares = [share[product] for product in queries.products if product in share]
    return 100 * float(np.mean(shares)) if shares else float("nan")
