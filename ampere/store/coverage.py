"""What a catalog lacks, and what looks wrong in it, by a model's search table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ampere.models.model_folder import embedding_name
from ampere.records import Domain
from ampere.retrieval.coverage import (
    Doubtful,
    Duplicate,
    Neighbors,
    doubtful_products,
    missing_products,
    near_duplicates,
)
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.segments import stacked_vectors
from ampere.retrieval.snapshot import Snapshot
from ampere.store.indexes import open_searcher
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace

NEIGHBORS = 10  # of each domain
ROWS_PER_SEARCH = 4096


@dataclass(frozen=True)
class Coverage:
    """What a catalog lacks, and what looks wrong in it.

    Attributes:
        samples: number of them in the search table.
        products: number of products.
        missing: domain -> products without a sample of it.
        duplicates, doubtful: see `ampere.retrieval.coverage`.
        examples: product -> a sample that shows it.
    """

    samples: int
    products: int
    missing: dict[Domain, list[str]]
    duplicates: list[Duplicate]
    doubtful: list[Doubtful]
    examples: dict[str, str]


def find_coverage(
    workspace: Workspace,
    model: str,
    *,
    duplicate_similarity: float,
    agreeing: int,
    name: str | None = None,
) -> Coverage:
    """Look at all samples of a model's search table.

    Args:
        workspace: with the model and its index.
        model: its name.
        duplicate_similarity: least cosine similarity of near duplicates.
        agreeing: nearest neighbors that must agree on another product.
        name: of the model with its weights; None: those of the last training.

    Raises:
        FileNotFoundError: no such model, or no index of it.
    """
    set_blas_threshold()
    name = name or embedding_name(model_folder(workspace, model))
    with open_searcher(workspace, name) as searcher:
        snapshot = searcher.snapshot
        rows = snapshot.dataset.to_table(columns=["sample_id", "product_id", "domain"])
        ids, products = rows["sample_id"].to_pylist(), rows["product_id"].to_pylist()
        domains = [Domain(domain) for domain in rows["domain"].to_pylist()]
        neighbors = nearest_others(snapshot, ids)
    return Coverage(
        len(ids),
        len(set(products) - {None}),
        missing_products(products, domains),
        near_duplicates(ids, products, domains, neighbors, duplicate_similarity),
        doubtful_products(ids, products, neighbors, agreeing),
        {product: name for product, name in zip(products, ids, strict=True) if product is not None},
    )


def nearest_others(snapshot: Snapshot, ids: Sequence[str]) -> Neighbors:
    """The nearest other samples of each row of the search table, `NEIGHBORS` of each domain.

    Args:
        snapshot: of the search table.
        ids: of its rows, in their order.
    """
    place_of = {sample_id: place for place, sample_id in enumerate(ids)}
    places, similarities = [], []
    start = 0
    for batch in snapshot.dataset.to_batches(columns=["vector"], batch_size=ROWS_PER_SEARCH):
        vectors = stacked_vectors(batch["vector"])
        found_places, found_scores = [], []
        for index in snapshot.domains.values():
            scores, found = index.nearest(vectors, min(NEIGHBORS + 1, index.count or 1))
            is_found = found >= 0
            rows = np.full(found.shape, -1, np.int64)
            rows[is_found] = [place_of.get(name, -1) for name in index.sample_ids(found[is_found])]
            found_places.append(rows)
            found_scores.append(scores)
        rows = np.concatenate(found_places, axis=1)
        scores = np.concatenate(found_scores, axis=1)
        itself = np.arange(start, start + len(vectors))[:, None]
        start += len(vectors)
        scores = np.where((rows < 0) | (rows == itself), -np.inf, scores)
        rows = np.where(rows == itself, -1, rows)
        order = np.argsort(-scores, axis=1, kind="stable")
        places.append(np.take_along_axis(rows, order, axis=1))
        similarities.append(np.take_along_axis(scores, order, axis=1))
    if not places:
        return Neighbors(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    return Neighbors(np.concatenate(places), np.concatenate(similarities))
