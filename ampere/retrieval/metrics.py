"""Ranks and measures of cross-domain retrieval with several right answers per query (paper, section IV-A)."""

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
        groups: ways to part the rows, each str [N]: the group of each row.
        samples: str [N], ids of the rows, where they are known.
    """

    vectors: NDArray[np.float32]
    products: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    samples: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U1"))


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How the queries of a task fared that have a right answer in the gallery; A of them.

    Attributes:
        rows: int64 [A], their places among all queries.
        first: int64 [A], rank of the best right answer, 0 for the first place.
        precision: float64 [A], average precision: the mean over the right answers of the share of right ones
            down to it.
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    precision: NDArray[np.float64]

    def values(self) -> NDArray[np.float64]:
        """Each query's measures in percent, [A, measures]; their means over queries are what `MEASURES` names."""
        recalls = [self.first < k for k in CUTOFFS]
        return 100 * np.stack([*recalls, 1 / (self.first + 1), self.precision], axis=1)


def rank_queries(
    queries: Vectors, gallery: Vectors, chunk: int = CHUNK, device: str | None = None
) -> Ranking:
    """Rank the gallery for every query that has a right answer in it, by exact search.

    A gallery item is right if it has the query's product. Items of equal similarity are ranked in gallery order, so the
    result is the same every time, on every device. Memory is that of `chunk` x gallery similarities of float64, 32 MB
    for 31,000 items; five times that on a device of torch's.

    Args:
        device: torch's name of the device to rank on; None for numpy on the CPU.

    Raises:
        ValueError: a vector is not finite; comparisons with it would put every right answer first.
    """
    for name, given in (("query", queries), ("gallery", gallery)):
        if bad := np.count_nonzero(~np.isfinite(given.vectors).all(axis=1)):
            raise ValueError(
                f"{bad} of {len(given.vectors)} {name} vectors are not finite; embed them again"
            )
    _, codes = np.unique(np.concatenate([queries.products, gallery.products]), return_inverse=True)
    asked, held = np.split(codes, [len(queries.products)])
    by_product = np.argsort(held, kind="stable")
    starts, stops = (np.searchsorted(held[by_product], asked, side) for side in ("left", "right"))
    rows = np.flatnonzero(stops > starts)
    right = [by_product[start:stop] for start, stop in zip(starts[rows], stops[rows], strict=True)]
    first, precision = np.empty(len(rows), np.int64), np.empty(len(rows), np.float64)
    if device is None:
        found = similarities(queries.vectors[rows], gallery.vectors, chunk)
        ranked: Iterator[NDArray[np.int64]] = (
            right_ranks(similarity, right[at]) for at, similarity in found
        )
    else:
        ranked = right_ranks_on(device, queries.vectors[rows], gallery.vectors, right, chunk)
    for at, ranks in enumerate(ranked):
        first[at] = ranks[0]
        precision[at] = np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))
    return Ranking(rows=rows, first=first, precision=precision)


def right_ranks(similarity: NDArray[np.float32], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of the right items, ascending, 0 for the first place, in a gallery ordered by falling similarity.

    Similarities 0.9, 0.5, 0.7, 0.5 with the last two right give the ranks 1 and 3: equals stand in gallery order.

    Args:
        similarity: float32 [G], of the query to each item.
        right: int64 [R], places of the right items.
    """
    own, ordered = similarity[right], np.sort(similarity)
    up_to = np.searchsorted(ordered, own, "right")
    ranks = len(similarity) - up_to
    for at in np.flatnonzero(up_to - np.searchsorted(ordered, own, "left") > 1):
        ranks[at] += np.count_nonzero(similarity[: right[at]] == own[at])
    return np.sort(ranks)


def right_ranks_on(
    device: str,
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    right: Sequence[NDArray[np.int64]],
    chunk: int,
) -> Iterator[NDArray[np.int64]]:
    """The same ranks, query by query, of all of a gallery's items by a stable sort on a device of torch's.

    Its products of float64 are exact as the CPU's are; see `similarities`. On the CPU this takes five times as long,
    for stable sorts are slow there.

    Args:
        queries: float32 [A, D].
        gallery: float32 [G, D].
        right: of each query the places of its right items.
    """
    import torch

    held = torch.from_numpy(_on_grid(gallery)).to(device).T
    places = torch.arange(len(gallery), device=device).expand(chunk, -1)
    for start in range(0, len(queries), chunk):
        asked = torch.from_numpy(_on_grid(queries[start : start + chunk])).to(device)
        order = (asked @ held).float().argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty_like(order).scatter_(1, order, places[: len(asked)])
        items = right[start : start + chunk]
        counts = [len(own) for own in items]
        query = np.repeat(np.arange(len(asked)), counts)
        found = (
            ranks[torch.from_numpy(query), torch.from_numpy(np.concatenate(items))].cpu().numpy()
        )
        yield from (np.sort(own) for own in np.split(found, np.cumsum(counts)[:-1]))


def similarities(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], chunk: int = CHUNK
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each query's number and its similarities to the gallery [G], computed for `chunk` queries at once.

    The last bits of a float32 product depend on where in it an item stands, so that equal items would not tie. With
    entries of whole 2^-23 the product of float64 is exact: equal items have equal similarities, whatever the chunk.
    """
    held = _on_grid(gallery).T
    for start in range(0, len(queries), chunk):
        product = _on_grid(queries[start : start + chunk]) @ held
        yield from ((at, row.astype(np.float32)) for at, row in enumerate(product, start))


def _on_grid(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.rint(vectors.astype(np.float64) * GRID) / GRID


def chance_recall_at_1(queries: Vectors, gallery: Vectors) -> float:
    """R@1 in percent of a random ranking: the mean share of right answers, over queries that have one."""
    products, counts = np.unique(gallery.products, return_counts=True)
    share = dict(zip(products, counts / max(1, len(gallery.products)), strict=True))
    shares = [share[product] for product in queries.products if product in share]
    return 100 * float(np.mean(shares)) if shares else float("nan")
