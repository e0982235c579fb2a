"""Queries of one modality, and whether samples without text lie apart from the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ampere.records import Domain
from ampere.retrieval.evaluation import evaluate_tasks, mean_recall, mr1_interval
from ampere.retrieval.metrics import Vectors

QUERIES = {"frames": "a picture or clip", "text": "words"}
MAX_NEIGHBOR_QUERIES = 1000  # so that a large test split is measured in seconds


def evaluate_alone(
    queries: Mapping[str, Mapping[Domain, Vectors]], gallery: Mapping[Domain, Vectors]
) -> dict[str, dict[str, Any]]:
    """Return mR1 in percent of queries of one modality, with its 95 % interval.

    Args:
        queries: by modality (`frames`, `text`) and domain, the vectors of the test samples' frames
            alone or text alone.
        gallery: by domain, the vectors of all whole test samples.
    """
    scores = {}
    for modality, by_domain in queries.items():
        results = evaluate_tasks(gallery, queries=by_domain)
        scores[modality] = {
            "mR1": mean_recall(results),
            "mR1_interval": list(mr1_interval([results])),
            "queries": sum(len(result.products) for result in results.values()),
        }
    return scores


def neighbors_without_text(gallery: Mapping[Domain, Vectors]) -> dict[str, float] | None:
    """Return how often samples without text are nearest to each other for that reason alone.

    Returns:
        `samples`: number of samples without text; `share`: their share of all samples, in percent;
        `cross_product`: share of them, in percent, whose nearest sample of any domain is another
        product's and has no text either. Near `share` they lie among the others; near 100 they form
        a cluster of their own. None if all samples have text, or none does.
    """
    vectors, products, is_without = (
        np.concatenate(parts)
        for parts in zip(
            *((v.vectors, v.products, v.groups["text"] == "without") for v in gallery.values()),
            strict=True,
        )
    )
    rows = np.flatnonzero(is_without)
    if len(rows) in (0, len(products)):
        return None
    queries = rows[:: -(-len(rows) // MAX_NEIGHBOR_QUERIES)]
    similarity = vectors[queries] @ vectors.T
    similarity[np.arange(len(queries)), queries] = -np.inf  # a sample is not its own neighbor
    nearest = similarity.argmax(axis=1)
    in_cluster = is_without[nearest] & (products[nearest] != products[queries])
    return {
        "samples": len(rows),
        "share": 100 * len(rows) / len(products),
        "cross_product": 100 * float(in_cluster.mean()),
    }


def format_alone(name: str, entry: Mapping[str, Any]) -> Sequence[str]:
    """Return lines on a model's queries of one modality, and on its samples without text."""
    lines = [
        f"{name}: mR1 of queries that are {QUERIES[modality]} alone: {scores['mR1']:.1f} "
        f"({scores['mR1_interval'][0]:.1f} to {scores['mR1_interval'][1]:.1f}, "
        f"{scores['queries']} queries)"
        for modality, scores in entry["alone"].items()
    ]
    if (cluster := entry["without_text"]) is not None:
        lines.append(
            f"{name}: {cluster['samples']:.0f} samples ({cluster['share']:.0f} %) have no text; "
            f"for {cluster['cross_product']:.0f} % of these, the nearest sample is another "
            "product's without text"
        )
    return lines
