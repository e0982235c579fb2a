"""Queries of words ranked by vector, by words, and by both: which mode suits a model's catalog."""

from collections.abc import Mapping, Sequence
from typing import Any

import lance
import numpy as np
from numpy.typing import NDArray

from ampere.bootstrap import interval
from ampere.records import Domain, Split
from ampere.retrieval.bootstrap import mean_over_tasks, resample
from ampere.retrieval.fusion import reciprocal_rank_fusion
from ampere.retrieval.lexical import rank_by_words
from ampere.retrieval.metrics import TASKS, Vectors
from ampere.retrieval.request import MODES
from ampere.retrieval.search import DEPTH

MAX_WORD_QUERIES = 300  # of a task, so that a large test split is measured in seconds
CUTOFFS = (1, 5, 10)


def evaluate_word_modes(
    dataset: lance.LanceDataset,
    queries: Mapping[Domain, Vectors],
    texts: Mapping[str, str],
    gallery: Mapping[Domain, Vectors],
) -> dict[str, dict[str, Any]]:
    """Mean R@1, R@5 and R@10 over the six tasks, in percent, of each mode.

    A query is the text of a test sample; the right answers are the samples of its product in
    another domain. Queries without one are left out.

    Args:
        dataset: the search table of the model.
        queries: by domain, the vectors of the test samples' texts alone.
        texts: sample id -> text of the test samples.
        gallery: by domain, the vectors of all whole test samples.

    Returns:
        Mode -> mR1 with its 95 % interval, mR5, mR10, and the number of queries.
    """
    hits: dict[str, dict[str, list[NDArray[np.float64]]]] = {mode: {} for mode in MODES}
    products: dict[str, NDArray[np.str_]] = {}
    for task, (asked, searched) in TASKS.items():
        if asked not in queries:
            continue
        rows = answerable(queries[asked], gallery[searched])
        products[task] = queries[asked].products[rows]
        for row in rows:
            rankings = ranked(dataset, queries[asked], texts, int(row), searched, gallery[searched])
            for mode, ranking in rankings.items():
                relevant = [name == queries[asked].products[row] for name in ranking[:10]]
                found = [float(any(relevant[:k])) for k in CUTOFFS]
                hits[mode].setdefault(task, []).append(100 * np.array(found))
    return {mode: summary(products, of_mode) for mode, of_mode in hits.items() if of_mode}


def answerable(queries: Vectors, gallery: Vectors) -> NDArray[np.int64]:
    """Numbers of the queries whose product is in the gallery, at most `MAX_WORD_QUERIES` evenly."""
    rows = np.flatnonzero(np.isin(queries.products, gallery.products))
    return rows[:: max(1, -(-len(rows) // MAX_WORD_QUERIES))]


def ranked(
    dataset: lance.LanceDataset,
    queries: Vectors,
    texts: Mapping[str, str],
    row: int,
    domain: Domain,
    gallery: Vectors,
) -> dict[str, list[str]]:
    """Products of the gallery's samples in the order of each mode, as a search ranks them."""
    sample_id = str(queries.samples[row])
    condition = f"split = '{Split.TEST}' AND product_id IS NOT NULL AND domain = '{domain}'"
    by_words = rank_by_words(dataset, texts[sample_id], DEPTH, condition).sample_ids[:DEPTH]
    similarity = gallery.vectors @ queries.vectors[row]
    order = np.lexsort((gallery.samples, -similarity))[:DEPTH]
    by_vector = gallery.samples[order].tolist()
    scores = reciprocal_rank_fusion(
        [{name: rank for rank, name in enumerate(names, 1)} for names in (by_vector, by_words)],
        [1.0, 1.0],
    )
    by_both = sorted(scores, key=lambda name: (-scores[name], name))
    product_of = dict(zip(gallery.samples.tolist(), gallery.products.tolist(), strict=True))
    orders = {"vector": by_vector, "lexical": by_words, "hybrid": by_both}
    return {
        mode: [product_of[name] for name in names if name in product_of]
        for mode, names in orders.items()
    }


def summary(
    products: Mapping[str, NDArray[np.str_]], hits: Mapping[str, Sequence[NDArray[np.float64]]]
) -> dict[str, Any]:
    """Means over the tasks, with the interval of R@1 over test sets of as many products."""
    values = {task: np.stack(of_task) for task, of_task in hits.items()}
    draws = resample([{task: (products[task], values[task]) for task in values}])[:, 0]
    means = np.mean([of_task.mean(axis=0) for of_task in values.values()], axis=0)
    return {f"mR{k}": float(mean) for k, mean in zip(CUTOFFS, means, strict=True)} | {
        "mR1_interval": list(interval(mean_over_tasks(draws[..., 0]))),
        "queries": sum(map(len, values.values())),
    }


def format_word_modes(name: str, modes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines on a model's modes, the best first."""
    return [
        f"{name}: mR1 of words, mode {mode}: {scores['mR1']:.1f} "
        f"({scores['mR1_interval'][0]:.1f} to {scores['mR1_interval'][1]:.1f}), "
        f"mR10 {scores['mR10']:.1f}, {scores['queries']} queries"
        for mode, scores in sorted(modes.items(), key=lambda item: -item[1]["mR1"])
    ]
