"""The six-task table: every model's recall in all directions between pages, shorts and lives."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ampere.records import Domain
from ampere.retrieval.metrics import CUTOFFS, TASKS, Vectors, first_hit_ranks, task_scores

RESAMPLES = 2000


def evaluate_model(name: str, vectors: Mapping[Domain, Vectors]) -> dict[str, Any]:
    """All six tasks and their mean R@1, in percent, as `reports/evaluation.json` holds them.

    A task that has no query with an answer is left out of mR1.
    """
    tasks = {task: task_scores(vectors[query], vectors[gallery]) for task, (query, gallery) in TASKS.items()}
    recalls = [scores["R1"] for scores in tasks.values() if scores["queries"]]
    chances = [scores["chance_R1"] for scores in tasks.values() if scores["queries"]]
    return {
        "model": name,
        "tasks": tasks,
        "mR1": float(np.mean(recalls)) if recalls else float("nan"),
        "chance_mR1": float(np.mean(chances)) if chances else float("nan"),
    }


def mr1_interval(runs: Sequence[Mapping[Domain, Vectors]]) -> tuple[float, float]:
    """The interval in percent that holds mR1 in 95 of 100 test sets of as many products.

    A percentile bootstrap over products: a drawn product brings all of its queries along. The galleries stay as they
    are.

    Args:
        runs: embeddings of the same test samples, such as those of trainings with different seeds; their mean is
            judged.

    Returns:
        The bounds; NaN where no query has an answer.
    """
    tables = [_hits_by_product(vectors) for vectors in runs]
    products = sorted({product for table in tables for task in table for product in task})
    if not products:
        return float("nan"), float("nan")
    place = {product: at for at, product in enumerate(products)}
    # [runs, tasks, products, 2]: hits and queries
    counts = np.zeros((len(runs), len(TASKS), len(products), 2))
    for run, table in enumerate(tables):
        for task, found in enumerate(table):
            for product, pair in found.items():
                counts[run, task, place[product]] = pair
    draws = np.random.default_rng(0).multinomial(len(products), np.full(len(products), 1 / len(products)), RESAMPLES)
    hits, queries = np.moveaxis(np.einsum("dp,rtpc->drtc", draws.astype(float), counts), -1, 0)
    with np.errstate(invalid="ignore"):
        recalls = hits / queries  # NaN for a task that a draw leaves without queries
    answered = counts[..., 1].sum(axis=2) > 0
    means = np.nanmean(np.where(answered, recalls, np.nan), axis=2).mean(axis=1)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def _hits_by_product(vectors: Mapping[Domain, Vectors]) -> list[dict[str, tuple[int, int]]]:
    """For each task: product -> its queries that found it first, and its queries that have an answer."""
    found: list[dict[str, tuple[int, int]]] = []
    for query, gallery in TASKS.values():
        asked = vectors[query].products
        products = asked[np.isin(asked, vectors[gallery].products)]
        hits = first_hit_ranks(vectors[query], vectors[gallery]) < 1
        names, places = np.unique(products, return_inverse=True)
        sums = zip(np.bincount(places, hits).astype(int), np.bincount(places), strict=True) if len(names) else ()
        found.append(dict(zip(names.tolist(), ((int(hit), int(count)) for hit, count in sums), strict=True)))
    return found


def format_table(results: list[dict[str, Any]]) -> str:
    """Results as a text table: a row a model, R@1/5/10 of each task, mR1; the last row is a random ranking."""
    width = max(8, *(len(result["model"]) for result in results))
    header = f"{'R@1/5/10':<{width}}" + "".join(f"{task:>18}" for task in TASKS) + f"{'mR1':>8}"
    lines = [header, "-" * len(header)]
    for result in results:
        cells = ("/".join(f"{result['tasks'][task][f'R{k}']:.1f}" for k in CUTOFFS) for task in TASKS)
        lines.append(
            f"{result['model']:<{width}}" + "".join(f"{cell:>18}" for cell in cells) + f"{result['mR1']:>8.1f}"
        )
    first = results[0]
    chance = (f"{first['tasks'][task]['chance_R1']:.1f}" for task in TASKS)
    lines.append(f"{'(chance)':<{width}}" + "".join(f"{cell:>18}" for cell in chance) + f"{first['chance_mR1']:>8.1f}")
    sizes = (f"{first['tasks'][task]['queries']} in {first['tasks'][task]['gallery']}" for task in TASKS)
    lines.append(f"{'queries':<{width}}" + "".join(f"{size:>18}" for size in sizes))
    return "\n".join(lines)
