"""Recall of cross-domain retrieval with several right answers per query (paper, section IV-A)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain

CUTOFFS = (1, 5, 10)
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
    """

    vectors: NDArray[np.float32]
    products: NDArray[np.str_]


def first_hit_ranks(queries: Vectors, gallery: Vectors, chunk: int = 1024) -> NDArray[np.int64]:
    """Rank of the best right answer to each query, 0 for the first place; queries without any right answer left out.

    A gallery item is right if it has the query's product. Items of equal similarity are ranked in gallery order, so
    the result is the same every time. Similarities are computed for `chunk` queries at once, against any size of
    gallery. For example, a query whose right answers stand at the third and the seventh place has rank 2.
    """
    _, codes = np.unique(np.concatenate([queries.products, gallery.products]), return_inverse=True)
    query_codes, gallery_codes = np.split(codes, [len(queries.products)])
    ranks = []
    for start in range(0, len(query_codes), chunk):
        similarity = queries.vectors[start : start + chunk] @ gallery.vectors.T
        right = query_codes[start : start + chunk, None] == gallery_codes[None, :]
        answered = right.any(axis=1)
        similarity, right = similarity[answered], right[answered]
        if not len(similarity):
            continue
        best = np.where(right, similarity, -np.inf)
        at = best.argmax(axis=1)  # the first of equals
        top = best[np.arange(len(at)), at][:, None]
        before = np.arange(similarity.shape[1])[None, :] < at[:, None]
        ranks.append((similarity > top).sum(axis=1) + ((similarity == top) & before).sum(axis=1))
    return np.concatenate(ranks) if ranks else np.empty(0, dtype=np.int64)


def task_scores(queries: Vectors, gallery: Vectors) -> dict[str, float]:
    """R1, R5 and R10 in percent, the sizes they were measured on, and R1 of a random ranking.

    Recalls are NaN where no query has a right answer in the gallery.
    """
    ranks = first_hit_ranks(queries, gallery)
    recalls = {f"R{k}": 100 * float((ranks < k).mean()) if len(ranks) else float("nan") for k in CUTOFFS}
    return recalls | {
        "queries": len(ranks),
        "queries_without_answer": len(queries.products) - len(ranks),
        "gallery": len(gallery.products),
        "chance_R1": chance_recall_at_1(queries, gallery),
    }


def chance_recall_at_1(queries: Vectors, gallery: Vectors) -> float:
    """R@1 in percent of a random ranking: the mean share of right answers, over queries that have one."""
    products, counts = np.unique(gallery.products, return_counts=True)
    share = dict(zip(products, counts / max(1, len(gallery.products)), strict=True))
    shares = [share[product] for product in queries.products if product in share]
    return 100 * float(np.mean(shares)) if shares else float("nan")
