"""`ampere evaluate-summaries`: each method's summaries against labelled transcripts (the paper's tables VI and VII)."""

import json
import tempfile
from typing import Any

import fsspec
from rich.table import Table

from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.stage import summarize_stage
from ampere.records import CLIP_DOMAINS, SAMPLES, SUMMARIES, Domain, MediaKind, Sample, Split
from ampere.store.table import sql_in
from ampere.store.workspace import Workspace
from ampere.text.checks.scores import SummaryScores, score_summaries
from ampere.text.summary import Status

NOTHING = {"product_name": "", "product_features": []}
Gold = dict[str, dict[str, Any]]


def read_gold(path: str) -> Gold:
    """Labelled transcripts by sample_id.

    A line of the file is a JSON object with sample_id, product_name and product_features; a name of "" says that the
    transcript is chat alone. `text` and `domain` (short or live) make it possible to summarize the transcript anew.

    Raises:
        ValueError: a line is no such object, is of a page, or an id comes twice.
    """
    gold: Gold = {}
    with fsspec.open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _gold_row(line, f"{path}:{number}")
            if row["sample_id"] in gold:
                raise ValueError(f"{path}:{number}: sample_id {row['sample_id']} is there twice")
            gold[row["sample_id"]] = row
    if not gold:
        raise ValueError(f"{path} has no labelled transcript")
    return gold


def _gold_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        strings = [row["sample_id"], row["product_name"], *row["product_features"]]
        if not all(isinstance(value, str) for value in strings) or isinstance(
            row["product_features"], str
        ):
            raise TypeError(
                "sample_id and product_name must be strings, product_features a list of strings"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: not a labelled transcript ({error!r})") from error
    if (domain := row.get("domain", Domain.LIVE)) not in CLIP_DOMAINS:
        raise ValueError(
            f"{where}: domain is {domain!r}; only clips are summarized: give {' or '.join(CLIP_DOMAINS)}"
        )
    return row


def score_workspace(workspace: Workspace, gold: Gold) -> dict[str, SummaryScores]:
    """Scores of every method that has rows of the labelled samples. Those that it has no summary of count as wrong.

    Raises:
        ValueError: no method has any.
    """
    found = found_summaries(workspace, gold)
    if not found:
        raise ValueError(
            f"{workspace.uri} has no summary of any of the {len(gold)} labelled samples"
        )
    return {
        method: score_summaries([(made.get(sample_id), truth) for sample_id, truth in gold.items()])
        for method, made in sorted(found.items())
    }


def found_summaries(workspace: Workspace, gold: Gold) -> dict[str, dict[str, dict[str, Any]]]:
    """What each method feeds the model of the labelled samples, by method and sample_id, as it is scored.

    A clip that is taken to have no transcript has no summary.
    """
    columns = ["sample_id", "method", "product_name", "product_features", "text", "status"]
    rows = workspace.table(SUMMARIES).read(columns, sql_in("sample_id", list(gold))).to_pylist()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        made = found.setdefault(row["method"], {})
        if row["status"] != Status.MISSING:
            made[row["sample_id"]] = NOTHING if row["status"] == Status.EMPTY else row | _fed(row)
    return found


def _fed(row: dict[str, Any]) -> dict[str, Any]:
    """Columns of a row that are scored otherwise than they stand, for the method does not feed them."""
    if row["method"] == "raw" and row["text"]:
        return {"product_features": [row["text"]]}
    if row["method"] == "llm-name":
        return {"product_features": []}
    return {"product_name": ""} if row["method"] == "llm-features" else {}


def summarize_gold(
    gold: Gold, settings: SummarizeSettings
) -> tuple[dict[str, SummaryScores], Report]:
    """Summarize the labelled transcripts themselves, in a workspace that is gone afterwards, and score them.

    Raises:
        ValueError: a labelled transcript has no text.
        RuntimeError: transcripts gave no answer, or nothing but failures, so that the scores would say nothing.
    """
    without = [sample_id for sample_id, row in gold.items() if not row.get("text")]
    if without:
        raise ValueError(
            f"{len(without)} labelled transcripts have no text, the first {without[0]}; give --workspace"
        )
    with tempfile.TemporaryDirectory(prefix="ampere-") as folder:
        workspace = Workspace.create(folder)
        samples = (
            Sample(
                sample_id=sample_id,
                product_id=None,
                domain=Domain(row.get("domain", Domain.LIVE)),
                split=Split.TEST,
                text=row["text"],
                media_kind=MediaKind.VIDEO,
                media_uris=(),
            ).to_row()
            for sample_id, row in gold.items()
        )
        workspace.table(SAMPLES).append(
            [row | {"fingerprint": fingerprint(row["text"])} for row in samples]
        )
        report = run_stage(summarize_stage(workspace, settings), workspace)
        if not report.succeeded:
            raise RuntimeError(
                f"of {len(gold)} labelled transcripts {report.unanswered} gave no answer and {report.failed.total()} "
                f"failed ({', '.join(report.failed) or 'none'}), so scores would say nothing; run it again"
            )
        return score_workspace(workspace, gold), report


def scores_table(scores: dict[str, SummaryScores]) -> Table:
    """The scores as a table to print, a line a method."""
    any_scores = next(iter(scores.values()))
    title = f"{any_scores.count} transcripts of products, {any_scores.chat_count} of chat alone; 95 % intervals"
    table = Table(title=title)
    if without := ", ".join(
        f"{method} {score.unanswered}" for method, score in scores.items() if score.unanswered
    ):
        table.caption = f"transcripts without a summary, which count as wrong: {without}"
    for head in (
        "method",
        "name right",
        "no output",
        "features recalled",
        "features right",
        "chat recognised",
    ):
        table.add_column(head)
    for method, score in scores.items():
        shares = (
            score.name_accuracy,
            score.no_output,
            score.feature_recall,
            score.feature_precision,
        )
        table.add_row(
            method, *map(str, shares), str(score.chat_recognised) if score.chat_count else ""
        )
    return table


def scores_json(scores: dict[str, SummaryScores]) -> str:
    """The scores as JSON, shares between 0 and 1."""
    return json.dumps({method: _plain(score) for method, score in scores.items()}, indent=2)


def _plain(score: SummaryScores) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int) else vars(value)
        for name, value in vars(score).items()
    }
