"""`ampere evaluate --judgments`: scores of models by the judgments that the endpoint stored."""

import json
import time
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES
from ampere.reports.text_table import new_table, render_table
from ampere.retrieval.judged import CUTOFF, JudgedScores, StoredJudgment, score_judgments
from ampere.store.judgments import read_judgments
from ampere.store.workspace import Workspace


def evaluate_judgments(workspace: Workspace) -> Report:
    """Score all judged models; write reports/judgments.json.

    Raises:
        ValueError: there are no judgments.
    """
    start = time.monotonic()
    judgments = read_judgments(workspace)
    if not judgments:
        raise ValueError(
            f"{workspace.uri} has no judgments. Judge search results on the page of "
            "`ampere serve`, or by POST /v1/judgments"
        )
    scores = score_judgments(judgments, domains_of(workspace, judgments))
    where = workspace.write_report(
        "judgments.json",
        json.dumps(
            {"judgments": len(judgments)} | scores_json(scores), ensure_ascii=False, indent=2
        ),
    )
    return Report(
        "evaluate",
        where,
        done=len(judgments),
        seconds=time.monotonic() - start,
        notes=[format_systems(scores), *([format_pairs(scores)] if scores.pairs else [])],
        unit="judgments",
    )


def domains_of(workspace: Workspace, judgments: list[StoredJudgment]) -> dict[str, str]:
    """The domain of each judged sample that still exists."""
    ids = pa.array({judgment.sample_id for judgment in judgments}, pa.string())
    rows = workspace.table(SAMPLES).read(["sample_id", "domain"], pc.field("sample_id").isin(ids))
    return dict(zip(rows["sample_id"].to_pylist(), rows["domain"].to_pylist(), strict=True))


def scores_json(scores: JudgedScores) -> dict[str, Any]:
    """Scores as JSON-like values; a rate of 1 is 100 %."""
    return {
        "systems": [
            system._asdict() | asdict(of_system) for system, of_system in scores.systems.items()
        ],
        "pairs": [
            {"first": first._asdict(), "second": second._asdict()} | asdict(of_pair)
            for (first, second), of_pair in scores.pairs.items()
        ],
    }


def format_systems(scores: JudgedScores) -> str:
    """A table with a line for each model and mode."""
    ndcg = f"nDCG@{CUTOFF}"
    counts = ("queries", "judged", "good")
    table = new_table("model", "mode", right=(*counts, ndcg, f"{ndcg} with unjudged as bad"))
    for system, of_system in scores.systems.items():
        table.add_row(
            *system,
            *(str(getattr(of_system, name)) for name in counts),
            str(of_system.ndcg),
            str(of_system.ndcg_strict),
        )
    return render_table(table)


def format_pairs(scores: JudgedScores) -> str:
    """A table with a line for each two systems that were judged side by side."""
    table = new_table("first", "second", right=("wins", "ties", "losses", "win rate of the first"))
    for (first, second), of_pair in scores.pairs.items():
        counts = (of_pair.wins, of_pair.ties, of_pair.losses)
        table.add_row(str(first), str(second), *map(str, counts), str(of_pair.win_rate))
    return render_table(table)
