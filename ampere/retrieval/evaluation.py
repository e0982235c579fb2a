"""The six-task table: every model's recall in all directions between pages, shorts and lives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.bootstrap import Queries, interval, mean_over_tasks, resample
from ampere.retrieval.metrics import (
    MEASURES,
    TASKS,
    Ranking,
    Vectors,
    chance_recall_at_1,
    rank_queries,
)

NAN = float("nan")
WORTH_A_GPU = 10_000  # samples of a domain


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task: what each of the A queries with a right answer in the gallery found.

    Attributes:
        products: str [A].
        samples: str [A], ids of the queries, where they are known.
        answers: str [G], ids of the gallery, where they are known.
        ranking: of the A queries.
        values: float64 [A, measures], in percent; see `ampere.retrieval.metrics.MEASURES`.
        groups: each way to part the queries, str [A].
        unanswered: queries without a right answer in the gallery, which are left out.
        gallery: its size.
        chance: R@1 in percent of a random ranking.
    """

    products: NDArray[np.str_]
    samples: NDArray[np.str_]
    answers: NDArray[np.str_]
    ranking: Ranking
    values: NDArray[np.float64]
    groups: Mapping[str, NDArray[np.str_]]
    unanswered: int
    gallery: int
    chance: float

    @property
    def queries(self) -> Queries:
        return self.products, self.values

    def means(self) -> dict[str, float]:
        """The measures, NaN without queries."""
        found = self.values.mean(axis=0) if len(self.values) else np.full(len(MEASURES), NAN)
        return dict(zip(MEASURES, map(float, found), strict=True))


Results = Mapping[str, TaskResult]  # by task


def judge(vectors: Mapping[Domain, Vectors]) -> Results:
    """All six tasks, by exact search, on a GPU if they are large and there is one; the results are the same."""
    device = ranking_device(max(len(found.products) for found in vectors.values()))
    results = {}
    for task, (asking, answering) in TASKS.items():
        queries, gallery = vectors[asking], vectors[answering]
        ranking = rank_queries(queries, gallery, device=device)
        results[task] = TaskResult(
            products=queries.products[ranking.rows],
            samples=queries.samples[ranking.rows] if len(queries.samples) else queries.samples,
            answers=gallery.samples,
            ranking=ranking,
            values=ranking.values(),
            groups={way: groups[ranking.rows] for way, groups in queries.groups.items()},
            unanswered=len(queries.products) - len(ranking.rows),
            gallery=len(gallery.products),
            chance=chance_recall_at_1(queries, gallery),
        )
    return results


def ranking_device(rows: int) -> str | None:
    """The device to rank so many samples of a domain on, as `rank_queries` has it.

    A second's work for the CPU is not worth the loading of torch.
    """
    if rows < WORTH_A_GPU:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def mean_recall(results: Results) -> float:
    """mR1 in percent: the mean R@1 of the tasks that have a query with an answer; NaN if none has."""
    recalls = [result.means()["R1"] for result in results.values() if len(result.products)]
    return float(np.mean(recalls)) if recalls else NAN


def evaluate_model(name: str, results: Results) -> dict[str, Any]:
    """All six tasks and their means, in percent, with 95 % intervals, as `reports/evaluation.json` holds them."""
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
    """mR1 in percent, and number of queries over all tasks, of each group of each way to part the queries."""
    ways = next(iter(results.values())).groups
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way in ways:
        names = sorted({str(group) for result in results.values() for group in result.groups[way]})
        for name in names:
            recalls = [result.values[result.groups[way] == name, 0] for result in results.values()]
            means = [float(recall.mean()) for recall in recalls if len(recall)]
            queries = sum(map(len, recalls))
            found.setdefault(way, {})[name] = {"mR1": float(np.mean(means)), "queries": queries}
    return found


def mr1_interval(runs: Sequence[Results]) -> tuple[float, float]:
    """The interval in percent that holds mR1 in 95 of 100 test sets of as many products.

    Args:
        runs: results on the same test samples, such as those of trainings with different seeds; their mean is judged.

    Returns:
        The bounds; NaN where no query has an answer.
    """
    draws = resample([{task: result.queries for task, result in run.items()} for run in runs])
    return interval(mean_over_tasks(draws[..., 0]).mean(axis=1))


def same_samples(first: Results, second: Results) -> bool:
    """Whether two models were judged on the same queries, those without an answer among them, and galleries."""
    return all(
        np.array_equal(one.samples, second[task].samples)
        and np.array_equal(one.answers, second[task].answers)
        and one.unanswered == second[task].unanswered
        for task, one in first.items()
    )


def compare(first: Results, second: Results) -> dict[str, Any]:
    """What the second of two models has over the first on the same queries, in points, with 95 % intervals.

    The intervals are of paired differences: both models are judged on the same draws of products.
    """
    draws = resample(
        [{task: result.queries for task, result in results.items()} for results in (first, second)]
    )
    change = draws[:, 1] - draws[:, 0]
    tasks = {
        task: {
            measure: {
                "difference": second[task].means()[measure] - first[task].means()[measure],
                "interval": list(interval(change[:, at, m])),
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
