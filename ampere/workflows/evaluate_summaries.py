"""`ampere evaluate-summaries`: summaries of each method and model against labeled transcripts.

The measures are those of the paper's tables VI and VII.
"""

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from ampere.config.summarize import SummarizeSettings
from ampere.fingerprint import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import CLIP_DOMAINS, SUMMARIES, Domain, MediaKind, Sample, Split
from ampere.store.workspace import Workspace
from ampere.text.checks.scores import SummaryScores, score_summaries
from ampere.text.summary import Status
from ampere.workflows.gold import Gold, Row, read_gold_rows, require_column, stage_run

NO_PRODUCT: Row = {"product_name": "", "product_features": []}


def read_gold(path: str) -> Gold:
    """Labeled transcripts by sample_id.

    A line of the file is a JSON object with sample_id, product_name and product_features. The name
    is empty if the transcript is only chat. To summarize the transcripts, `text` is needed too;
    `domain` is short or live (default).

    Raises:
        ValueError: a line is not such an object or labels a page, or an id is duplicate.
    """
    return read_gold_rows(path, _gold_row, "labeled transcripts")


def _gold_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
        strings = [row["sample_id"], row["product_name"], *row["product_features"]]
        is_list = not isinstance(row["product_features"], str)
        if not is_list or not all(isinstance(value, str) for value in strings):
            raise TypeError(
                "sample_id and product_name must be strings, product_features a list of strings"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: not a labeled transcript ({error!r})") from error
    if (domain := row.get("domain", Domain.LIVE)) not in CLIP_DOMAINS:
        raise ValueError(f"{where}: domain is {domain!r}; expected {' or '.join(CLIP_DOMAINS)}")
    return row


def score_workspace(workspace: Workspace, gold: Gold) -> dict[str, SummaryScores]:
    """Scores of every method and model with rows of the labeled samples, by label.

    Missing summaries count as wrong.

    Raises:
        ValueError: no method has any.
    """
    by_method = summaries_by_method(workspace, gold)
    if not by_method:
        raise ValueError(
            f"{workspace.uri} has no summary of the {len(gold)} labeled samples. "
            "Run ampere summarize, or check the sample ids"
        )
    return {
        method: score_summaries([(summaries.get(id_), truth) for id_, truth in gold.items()])
        for method, summaries in sorted(by_method.items())
    }


def summaries_by_method(workspace: Workspace, gold: Gold) -> dict[str, dict[str, Row]]:
    """The summaries of the labeled samples as they are scored, by label and sample_id.

    A label is a method, or "METHOD by MODEL" where a method has several models. A clip of status
    missing has no summary.
    """
    columns = ["sample_id", "method", "model", "product_name", "product_features", "text", "status"]
    labeled = pc.field("sample_id").isin(pa.array(gold, pa.string()))
    rows = workspace.table(SUMMARIES).read(columns, labeled).to_pylist()
    models: dict[str, set[str]] = {}
    for row in rows:
        models.setdefault(row["method"], set()).add(row["model"])
    by_method: dict[str, dict[str, Row]] = {}
    for row in rows:
        method = row["method"]
        label = method if len(models[method]) == 1 else f"{method} by {row['model']}"
        summaries = by_method.setdefault(label, {})
        if row["status"] != Status.MISSING:
            summaries[row["sample_id"]] = _scored(row)
    return by_method


def _scored(row: Row) -> Row:
    """The columns of a summary that are scored; a raw transcript is one phrase."""
    if row["status"] == Status.EMPTY:
        return NO_PRODUCT
    if row["method"] == "raw" and row["text"]:
        return row | {"product_features": [row["text"]]}
    return row


def summarize_gold(
    gold: Gold, settings: SummarizeSettings
) -> tuple[dict[str, SummaryScores], Report]:
    """Summarize the labeled transcripts in a temporary workspace, and score the summaries.

    Raises:
        ValueError: a labeled transcript has no text.
        RuntimeError: rows were not processed, or all failed, so scores would be misleading.
    """
    require_column(gold, "text", "labeled transcripts", "summaries")
    samples = [_sample_row(row) for row in gold.values()]
    with stage_run(
        samples, lambda workspace: SummarizeStage(workspace, settings), "labeled transcripts"
    ) as (workspace, report):
        return score_workspace(workspace, gold), report


def _sample_row(row: Row) -> Row:
    """The row of the samples table for a labeled transcript."""
    sample = Sample(
        sample_id=row["sample_id"],
        product_id=None,
        domain=Domain(row.get("domain", Domain.LIVE)),
        split=Split.TEST,
        text=row["text"],
        media_kind=MediaKind.FILE,
        media_uris=(),
    )
    return sample.to_row() | {"fingerprint": fingerprint(row["text"])}


def scores_table(scores: dict[str, SummaryScores]) -> Table:
    """The scores as a table to print, one row per method."""
    any_scores = next(iter(scores.values()))
    products, chats = any_scores.count, any_scores.chat_count
    table = Table(
        *("method", "name right", "no output", "features recalled", "features right"),
        "chat recognized",
        title=f"{products} product transcripts, {chats} chat transcripts; 95 % intervals",
    )
    unanswered = [
        f"{method} {score.unanswered}" for method, score in scores.items() if score.unanswered
    ]
    if unanswered:
        table.caption = f"transcripts without a summary, counted as wrong: {', '.join(unanswered)}"
    for method, score in scores.items():
        table.add_row(
            method,
            str(score.name_accuracy),
            str(score.no_output),
            str(score.feature_recall),
            str(score.feature_precision),
            str(score.chat_recognised) if score.chat_count else "",
        )
    return table


def scores_json(scores: dict[str, SummaryScores]) -> str:
    """The scores as JSON, shares between 0 and 1."""
    return json.dumps({method: asdict(score) for method, score in scores.items()}, indent=2)
