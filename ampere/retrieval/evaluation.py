"""The six-task table: every model's recall in all directions between pages, shorts and lives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ampere.records import Domain
from ampere.retrieval.metrics import CUTOFFS, TASKS, Vectors, task_scores


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
