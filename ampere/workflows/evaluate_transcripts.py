"""`ampere evaluate-transcripts`: transcripts against what was said in labeled clips."""

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from ampere.config.transcribe import TranscribeSettings
from ampere.fingerprint import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.records import TRANSCRIPTS, Domain, MediaKind, Sample, Split
from ampere.store.workspace import Workspace
from ampere.text.checks.word_errors import (
    BY_CHARACTER,
    Reference,
    TranscriptScores,
    score_transcripts,
)
from ampere.text.transcript import TranscriptStatus
from ampere.uris import absolute, folder_of, is_uri
from ampere.workflows.gold import Gold, Row, read_gold_rows, require_column, stage_run

Scores = dict[str, TranscriptScores]  # of all clips, and of those in each language


def read_gold(path: str) -> Gold:
    """Labeled clips by sample_id.

    A line of the file is a JSON object with sample_id and text, what is said in the clip; empty if
    nothing is. `language` is an ISO 639-1 code; without it, the script of the text decides. To
    transcribe the clips, `media` is needed too: a path relative to the file, or a URI.

    Raises:
        ValueError: a line is not such an object, or an id is duplicate.
    """
    gold = read_gold_rows(path, _gold_row, "labeled clips")
    folder = folder_of(absolute(path))
    for row in gold.values():
        media = row.get("media")
        if media and not media.startswith("/") and not is_uri(media):
            row["media"] = f"{folder}/{media}"
    return gold


def _gold_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
        strings = [row["sample_id"], row["text"]]
        strings += [row[name] for name in ("language", "media") if row.get(name) is not None]
        if not all(isinstance(value, str) for value in strings):
            raise TypeError("sample_id, text, language and media must be strings")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: not a labeled clip ({error!r})") from error
    return row


def score_workspace(workspace: Workspace, gold: Gold) -> Scores:
    """Scores of a workspace's transcripts of the labeled clips; see `score_transcripts`.

    A clip whose row is missing, or whose file has no audio, has no transcript.

    Raises:
        ValueError: no clip has one.
    """
    labeled = pc.field("sample_id").isin(pa.array(gold, pa.string()))
    columns = ["sample_id", "status", "text"]
    rows = workspace.table(TRANSCRIPTS).read(columns, labeled).to_pylist()
    texts = {
        row["sample_id"]: row["text"] or ""
        for row in rows
        if row["status"] != TranscriptStatus.MISSING
    }
    if not texts:
        raise ValueError(
            f"{workspace.uri} has no transcript of the {len(gold)} labeled clips. "
            "Run ampere transcribe, or check the sample ids"
        )
    return score_transcripts(
        [
            (texts.get(id_), Reference(text=row["text"], language=row.get("language") or ""))
            for id_, row in gold.items()
        ]
    )


def transcribe_gold(gold: Gold, settings: TranscribeSettings) -> tuple[Scores, Report]:
    """Transcribe the labeled clips in a temporary workspace, and score the transcripts.

    Raises:
        ValueError: a labeled clip has no media.
        RuntimeError: clips were not processed, or all failed, so scores would be misleading.
    """
    from ampere.pipeline.transcribe.stage import TranscribeStage

    require_column(gold, "media", "labeled clips", "transcripts")
    samples = [_sample_row(row) for row in gold.values()]
    with stage_run(
        samples, lambda workspace: TranscribeStage(workspace, settings), "labeled clips"
    ) as (workspace, report):
        return score_workspace(workspace, gold), report


def _sample_row(row: Row) -> Row:
    """The row of the samples table for a labeled clip."""
    sample = Sample(
        sample_id=row["sample_id"],
        product_id=None,
        domain=Domain.SHORT,
        split=Split.TEST,
        text=None,
        media_kind=MediaKind.FILE,
        media_uris=(row["media"],),
    )
    return sample.to_row() | {"fingerprint": fingerprint(row["media"])}


def scores_table(scores: Scores) -> Table:
    """The scores as a table to print, one row per language."""
    total = scores["all"]
    table = Table(
        *("language", "unit", "clips", "tokens", "error rate", "substituted", "deleted"),
        *("inserted", "without transcript"),
        title=f"{total.clips} labeled clips; 95 % intervals",
    )
    if total.without_transcript:
        table.caption = "what is said in clips without a transcript counts as deleted"
    for language, score in scores.items():
        unit = "character" if language in BY_CHARACTER else "word"
        table.add_row(
            language,
            "both" if language == "all" else unit,
            *(str(score.clips), str(score.tokens), str(score.error_rate)),
            *(str(score.substituted), str(score.deleted), str(score.inserted)),
            str(score.without_transcript),
        )
    return table


def scores_json(scores: Scores) -> str:
    """The scores as JSON; an error rate of 1 is 100 %."""
    return json.dumps({language: asdict(score) for language, score in scores.items()}, indent=2)
