"""Results of an evaluation as text tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from ampere.retrieval.metrics import CUTOFFS, TASKS

CELL_WIDTH, LAST_WIDTH = 18, 15


def format_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with R@1/5/10 of each task and mR1, one model per row.

    Below each model are the intervals of R@1, and MRR and mAP. The last rows are a random ranking
    and the numbers of queries and gallery items.

    Args:
        results: as `evaluate_model` returns them.
    """
    first = results[0]
    width = max(10, *(len(result["model"]) for result in results))

    def line(name: str, cells: Sequence[str], last: str = "") -> str:
        columns = "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)
        return f"{name:<{width}}{columns}{last:>{LAST_WIDTH}}"

    header = line("R@1/5/10", list(TASKS), "mR1")
    lines = [header, "-" * len(header)]
    for result in results:
        tasks = [result["tasks"][task] for task in TASKS]
        lines += [
            line(
                result["model"],
                ["/".join(f"{t[f'R{k}']:.1f}" for k in CUTOFFS) for t in tasks],
                f"{result['mR1']:.1f}",
            ),
            line(
                "  R@1, 95 %",
                [format_interval(t["intervals"]["R1"]) for t in tasks],
                format_interval(result["mR1_interval"]),
            ),
            line("  MRR/mAP", [f"{t['MRR']:.1f}/{t['mAP']:.1f}" for t in tasks]),
        ]
    tasks = [first["tasks"][task] for task in TASKS]
    chances = [f"{t['chance_R1']:.1f}" for t in tasks]
    lines.append(line("(chance)", chances, f"{first['chance_mR1']:.1f}"))
    lines.append(line("queries", [f"{t['queries']} in {t['gallery']}" for t in tasks]))
    return "\n".join(text.rstrip() for text in lines)


def format_groups(result: Mapping[str, Any]) -> str:
    """Return mR1 of each group of queries, the worst first, one grouping per line."""
    lines = []
    for grouping, groups in result["groups"].items():
        ordered = sorted(groups.items(), key=lambda item: item[1]["mR1"])
        cells = (f"{name} {scores['mR1']:.1f} ({scores['queries']})" for name, scores in ordered)
        lines.append(f"mR1 by {grouping} (queries): " + ", ".join(cells))
    return "\n".join(lines)


def format_comparison(first: str, second: str, comparison: Mapping[str, Any]) -> str:
    """Return the paired differences of R@1 in points, as a line.

    Args:
        first, second: names of the models.
        comparison: as `ampere.retrieval.evaluation.compare` returns it.
    """
    tasks = ", ".join(f"{task} {format_change(comparison['tasks'][task]['R1'])}" for task in TASKS)
    mr1 = format_change(comparison["mR1"])
    return f"{second} over {first}, R@1 in points: mR1 {mr1}; {tasks}"


def format_change(change: Mapping[str, Any]) -> str:
    """Return a difference with its interval."""
    low, high = change["interval"]
    return f"{change['difference']:+.1f} ({low:+.1f} to {high:+.1f})"


def format_interval(bounds: Sequence[float]) -> str:
    """Return the bounds of an interval."""
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}"
