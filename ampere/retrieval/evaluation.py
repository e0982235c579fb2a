"""Six-task evaluation: recall in all directions between pages, shorts and lives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ampere.bootstrap import interval
from ampere.records import Domain
from ampere.retrieval.bootstrap import Queries, mean_over_tasks, resample
from ampere.retrieval.metrics import (
    MEASURES,
    TASKS,
    Ranking,
    Vectors,
    chance_recall_at_1,
    rank_queries,
)

NAN = float("nan")
GPU_RANKING_MIN_ROWS = 10_000  # of a domain; fewer take the CPU a second, less than loading torch


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Results of one task, for its A queries with a relevant item in the gallery.

    Attributes:
        products: str [A], products of the queries.
        samples: str [A], sample ids of the queries; empty if unknown.
        gallery_samples: str [G], sample ids of the gallery; empty if unknown.
        ranking: of the A queries.
        values: float64 [A, measures], in percent; see `ampere.retrieval.metrics.MEASURES`.
        groups: by name of a grouping, the group of each query, str [A].
        unanswered: number of queries without a relevant item, which are excluded.
        gallery: its size, G.
        chance: R@1 in percent of a random ranking.
    """

    products: NDArray[np.str_]
    samples: NDArray[np.str_]
    gallery_samples: NDArray[np.str_]
    ranking: Ranking
    values: NDArray[np.float64]
    groups: Mapping[str, NDArray[np.str_]]
    unanswered: int
    gallery: int
    chance: float

    @property
    def queries(self) -> Queries:
        """Products and measures of the queries, for the bootstrap."""
        return self.products, self.values

    def means(self) -> dict[str, float]:
        """Return the mean of each measure over the queries; NaN without queries."""
        means = self.values.mean(axis=0) if len(self.values) else np.full(len(MEASURES), NAN)
        return dict(zip(MEASURES, map(float, means), strict=True))


Results = Mapping[str, TaskResult]  # by task


def evaluate_tasks(
    vectors: Mapping[Domain, Vectors], queries: Mapping[Domain, Vectors] | None = None
) -> Results:
    """Evaluate all six tasks by exact search.

    Large galleries are ranked on a GPU if there is one; the results are the same.

    Args:
        vectors: the galleries.
        queries: None: the galleries' own samples.
    """
    asked = vectors if queries is None else queries
    device = ranking_device(max(len(of_domain.products) for of_domain in vectors.values()))
    results = {}
    for task, (query_domain, gallery_domain) in TASKS.items():
        query, gallery = asked[query_domain], vectors[gallery_domain]
        ranking = rank_queries(query, gallery, device=device)
        results[task] = TaskResult(
            products=query.products[ranking.rows],
            samples=query.samples[ranking.rows] if len(query.samples) else query.samples,
            gallery_samples=gallery.samples,
            ranking=ranking,
            values=ranking.values(),
            groups={name: groups[ranking.rows] for name, groups in query.groups.items()},
            unanswered=len(query.products) - len(ranking.rows),
            gallery=len(gallery.products),
            chance=chance_recall_at_1(query, gallery),
        )
    return results


def ranking_device(rows: int) -> str | None:
    """Return the `device` argument of `rank_queries` for domains of at most this many samples."""
    if rows < GPU_RANKING_MIN_ROWS:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def mean_recall(results: Results) -> float:
    """Return mR1 in percent: the mean R@1 of the tasks that have queries; NaN if none has."""
    recalls = [result.means()["R1"] for result in results.values() if len(result.products)]
    return float(np.mean(recalls)) if recalls else NAN


def evaluate_model(name: str, results: Results) -> dict[str, Any]:
    """Return measures in percent of all six tasks and their means, with 95 % intervals.

    This is a model's entry in `reports/evaluation.json`.
    """
    draws = resample([{task: result.queries for task, result in results.items()}])[:, 0]
    tasks = {}
    for at, (task, result) in enumerate(results.items()):
        tasks[task] = result.means() | {
            "intervals": {
                measure: list(interval(draws[:, at, m])) for m, measure in enumerate(MEASURES)
            },
            "queries": len(result.products),
            "queries_without_answer": result.unanswered,
            "gallery": result.gallery,
            "chance_R1": result.chance,
        }
    chances = [result.chance for result in results.values() if len(result.products)]
    return {
        "model": name,
        "tasks": tasks,
        "mR1": mean_recall(results),
        "mR1_interval": list(interval(mean_over_tasks(draws[..., 0]))),
        "chance_mR1": float(np.mean(chances)) if chances else NAN,
        "groups": group_scores(results),
    }


def group_scores(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return mR1 in percent and the number of queries over all tasks, by grouping and group."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for grouping in next(iter(results.values())).groups:
        names = {str(name) for result in results.values() for name in result.groups[grouping]}
        for name in sorted(names):
            recalls = [
                result.values[result.groups[grouping] == name, 0] for result in results.values()
            ]
            means = [float(recall.mean()) for recall in recalls if len(recall)]
            queries = sum(map(len, recalls))
            scores.setdefault(grouping, {})[name] = {
                "mR1": float(np.mean(means)),
                "queries": queries,
            }
    return scores


def mr1_interval(runs: Sequence[Results]) -> tuple[float, float]:
    """Return the 95 % interval of mR1 in percent, over test sets of as many products.

    Args:
        runs: results on the same test samples, such as of trainings with different seeds; the
            interval is that of their mean.

    Returns:
        The bounds; NaN if no query has a relevant item.
    """
    draws = resample([{task: result.queries for task, result in run.items()} for run in runs])
    return interval(mean_over_tasks(draws[..., 0]).mean(axis=1))


def same_samples(first: Results, second: Results) -> bool:
    """Return whether two models were evaluated on the same queries and galleries.

    Excluded queries are compared by number.
    """
    return all(
        np.array_equal(one.samples, second[task].samples)
        and np.array_equal(one.gallery_samples, second[task].gallery_samples)
        and one.unanswered == second[task].unanswered
        for task, one in first.items()
    )


def compare(first: Results, second: Results) -> dict[str, Any]:
    """Return the gain of the second model over the first on the same queries, in points.

    With 95 % intervals of paired differences: both models are evaluated on the same draws of
    products.
    """
    draws = resample(
        [{task: result.queries for task, result in results.items()} for results in (first, second)]
    )
    differences = draws[:, 1] - draws[:, 0]
    tasks = {
        task: {
            measure: {
                "difference": second[task].means()[measure] - first[task].means()[measure],
                "interval": list(interval(differences[:, at, m])),
            }
            for m, measure in enumerate(MEASURES)
        }
        for at, task in enumerate(first)
    }
    means = mean_over_tasks(draws[..., 0])
    difference = mean_recall(second) - mean_recall(first)
    return {
        "tasks": tasks,
        "mR1": {"difference": difference, "interval": list(interval(means[:, 1] - means[:, 0]))},
    }
