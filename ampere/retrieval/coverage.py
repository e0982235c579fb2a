"""What a catalog lacks, and what looks wrong in it, from the nearest neighbors of its samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain


@dataclass(frozen=True)
class Duplicate:
    """Two samples of one domain that are almost equal.

    Attributes:
        similarity: cosine.
        same_product: whether both have the same product_id; None if either has none.
    """

    first: str
    second: str
    similarity: float
    same_product: bool | None


@dataclass(frozen=True)
class Doubtful:
    """A sample whose nearest neighbors all belong to one other product.

    Attributes:
        product_id: that the catalog gives it.
        neighbors_product: theirs.
        similarity: mean cosine to them.
    """

    sample_id: str
    product_id: str
    neighbors_product: str
    similarity: float


@dataclass(frozen=True)
class Neighbors:
    """The nearest other samples of each sample, of all domains, the nearest first.

    Attributes:
        places: int64 [N, K], positions of the neighbors; -1: there are no more.
        similarities: float32 [N, K].
    """

    places: NDArray[np.int64]
    similarities: NDArray[np.float32]


def missing_products(
    products: Sequence[str | None], domains: Sequence[Domain]
) -> dict[Domain, list[str]]:
    """Products without a sample of a domain, sorted, by domain.

    Args:
        products: product_id of each sample; None: unknown.
        domains: domain of each sample.

    >>> missing_products(["mug", "mug", "pen"], [Domain.PAGE, Domain.SHORT, Domain.SHORT])[
    ...     Domain.PAGE
    ... ]
    ['pen']
    """
    shown: dict[Domain, set[str]] = {domain: set() for domain in Domain}
    for product, domain in zip(products, domains, strict=True):
        if product is not None:
            shown[domain].add(product)
    every = set().union(*shown.values())
    return {domain: sorted(every - of_domain) for domain, of_domain in shown.items()}


def near_duplicates(
    ids: Sequence[str],
    products: Sequence[str | None],
    domains: Sequence[Domain],
    neighbors: Neighbors,
    least: float,
) -> list[Duplicate]:
    """Pairs of samples of one domain that are almost equal, the most similar first.

    Args:
        ids, products, domains: of each sample.
        neighbors: of each sample; a pair is found if one is among the other's.
        least: cosine similarity of a pair.
    """
    pairs: dict[tuple[int, int], float] = {}
    for at, column in np.argwhere(neighbors.similarities >= least).tolist():
        other = int(neighbors.places[at, column])
        if other >= 0 and domains[at] == domains[other]:
            pair = (at, other) if ids[at] < ids[other] else (other, at)
            pairs[pair] = float(neighbors.similarities[at, column])
    found = [
        Duplicate(
            ids[first],
            ids[second],
            similarity,
            None
            if products[first] is None or products[second] is None
            else products[first] == products[second],
        )
        for (first, second), similarity in pairs.items()
    ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def doubtful_products(
    ids: Sequence[str], products: Sequence[str | None], neighbors: Neighbors, count: int
) -> list[Doubtful]:
    """Samples whose nearest neighbors all belong to one other product, the surest first.

    Neighbors without a product_id say nothing and are passed over.

    Args:
        ids, products: of each sample.
        neighbors: of each sample.
        count: of neighbors that must agree; a sample with fewer is left out.
    """
    found = []
    for at, own in enumerate(products):
        if own is None:
            continue
        known = [
            (products[place], float(similarity))
            for place, similarity in zip(
                neighbors.places[at].tolist(), neighbors.similarities[at].tolist(), strict=True
            )
            if place >= 0 and products[place] is not None
        ][:count]
        theirs = {product for product, _ in known}
        if len(known) == count and len(theirs) == 1 and own not in theirs:
            mean = sum(similarity for _, similarity in known) / count
            found.append(Doubtful(ids[at], own, str(theirs.pop()), mean))
    return sorted(found, key=lambda sample: (-sample.similarity, sample.sample_id))
