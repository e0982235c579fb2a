"""Results of evaluation as text tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from ampere.retrieval.metrics import CUTOFFS, TASKS

CELL, LAST = 18, 15


def format_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row a model with R@1/5/10 of each task and mR1, below it the intervals of R@1, and MRR and mAP.

    The last rows are a random ranking and the sizes.

    Args:
        results: as `evaluate_model` gives them.
    """
    first = results[0]
    width = max(10, *(len(result["model"]) for result in results))

    def line(name: str, cells: Sequence[str], last: str = "") -> str:
        return f"{name:<{width}}" + "".join(f"{cell:>{CELL}}" for cell in cells) + f"{last:>{LAST}}"

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
                [span(t["intervals"]["R1"]) for t in tasks],
                span(result["mR1_interval"]),
            ),
            line("  MRR/mAP", [f"{t['MRR']:.1f}/{t['mAP']:.1f}" for t in tasks]),
        ]
    chances = [f"{first['tasks'][task]['chance_R1']:.1f}" for task in TASKS]
    lines.append(line("(chance)", chances, f"{first['chance_mR1']:.1f}"))
    lines.append(
        line(
            "queries",
            [f"{first['tasks'][t]['queries']} in {first['tasks'][t]['gallery']}" for t in TASKS],
        )
    )
    return "\n".join(text.rstrip() for text in lines)


def format_groups(result: Mapping[str, Any]) -> str:
    """mR1 of each group of queries, the worst first."""
    lines = []
    for way, groups in result["groups"].items():
        ordered = sorted(groups.items(), key=lambda item: item[1]["mR1"])
        cells = (f"{name} {scores['mR1']:.1f} ({scores['queries']})" for name, scores in ordered)
        lines.append(f"mR1 by {way} (queries): " + ", ".join(cells))
    return "\n".join(lines)


def format_comparison(first: str, second: str, comparison: Mapping[str, Any]) -> str:
    """Paired differences of R@1, in points."""
    cells = [f"{task} {change(comparison['tasks'][task]['R1'])}" for task in TASKS]
    return f"{second} over {first}, R@1 in points: mR1 {change(comparison['mR1'])}; " + ", ".join(
        cells
    )


def change(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['difference']:+.1f} ({low:+.1f} to {high:+.1f})"


def span(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}"
