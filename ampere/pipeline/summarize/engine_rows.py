"""Rows before and after an engine: transcripts to prompts, completions to result rows.

Both steps run in actors beside the engines. A long transcript has a prompt for each of its pieces;
`join_pieces` brings the pieces together that come back in different batches.

A transcript that no prompt can be made of carries its error in Ray's own column for failed rows,
so that the engine skips it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.stage import error_columns, error_row, result_schema, result_table
from ampere.pipeline.summarize.rows import transcripts
from ampere.records import SUMMARIES
from ampere.store.transcripts import SampleTexts
from ampere.text.llm_engine import CompletionReader, prompt_builder
from ampere.text.summary import AnswerError

ERROR = "__inference_error__"  # Ray's; its engine stage skips rows in which it is not empty
PROMPT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("piece", pa.int32()),
        ("pieces", pa.int32()),  # of the transcript; 0: the prompt could not be made
        ("transcript", pa.string()),  # the piece
        ("language", pa.string()),
        ("tokenized_prompt", pa.list_(pa.int32())),
        (ERROR, pa.string()),  # JSON of the error columns of a prompt that could not be made
    ]
)
# `piece` is JSON of a `Piece`, where the other pieces of the transcript are in other batches; null
# where the row is a result row.
COMPLETION_SCHEMA = result_schema(SUMMARIES).append(pa.field("piece", pa.string()))


class EngineError(RuntimeError):
    """The engine returned no completion for a row, though it still runs."""


class FormPrompts:
    """The actor before an engine: transcripts to tokenized prompts, a row for each piece.

    Args:
        settings: of the stage.
        texts: that the positions refer to.
    """

    def __init__(self, settings: SummarizeSettings, texts: SampleTexts) -> None:
        self.builder = prompt_builder(settings)
        self.texts = texts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with sample_id, fingerprint and position to rows of `PROMPT_SCHEMA`."""
        rows = []
        for row, text in transcripts(self.texts, batch):
            try:
                rows += self._prompts(row, text)
            except Exception as error:  # the per-row edge: a strange transcript fails one row
                rows.append(_failed_prompt(row, error))
        return pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA)

    def _prompts(self, row: dict[str, str], text: str) -> list[dict[str, Any]]:
        prompts = self.builder.prompts(text)
        if not prompts:
            raise ValueError("nothing is left of the transcript after cleaning")
        return [
            row
            | {"piece": number, "pieces": len(prompts), "transcript": prompt.text}
            | {"language": str(prompt.language), "tokenized_prompt": prompt.tokens, ERROR: ""}
            for number, prompt in enumerate(prompts)
        ]


def _failed_prompt(row: dict[str, str], error: Exception) -> dict[str, Any]:
    empty = {"piece": 0, "pieces": 0, "transcript": "", "language": "", "tokenized_prompt": []}
    return row | empty | {ERROR: json.dumps(error_columns(error))}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What the engine returned for one piece of a transcript.

    Attributes:
        number: of the piece, from 0.
        pieces: of the transcript.
        language: of the prompt.
        is_retry: whether the piece was tried before.
        completion: the fields of `ampere.text.llm.Completion`.
    """

    number: int
    pieces: int
    language: str
    is_retry: bool
    completion: dict[str, Any]


class ReadCompletions:
    """The actor after an engine: completions to result rows, or to pieces of them.

    Args:
        settings: of the stage.
        origin: model, weights and prompt_version of the rows.
        max_model_len: tokens of a prompt and its completion together at which the engine stops.
        is_retry: whether the rows were tried before.
    """

    def __init__(
        self,
        settings: SummarizeSettings,
        origin: dict[str, str],
        max_model_len: int,
        is_retry: bool = False,
    ) -> None:
        self.reader = CompletionReader(settings, max_model_len)
        self.is_retry = is_retry
        self.origin = {"method": settings.method} | origin

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Columns of `PROMPT_SCHEMA` and of the engine to rows of `COMPLETION_SCHEMA`."""
        pieces: dict[tuple[str, str], list[Piece]] = {}
        rows: list[dict[str, Any]] = []
        for i, key in enumerate(zip(batch["sample_id"], batch["fingerprint"], strict=True)):
            row = {name: column[i] for name, column in batch.items()}
            if row["pieces"]:
                pieces.setdefault(key, []).append(self._piece(row))
            else:
                sample_id, fingerprint = key
                keys = {"sample_id": sample_id, "fingerprint": fingerprint}
                rows.append(keys | json.loads(row[ERROR]))
        for (sample_id, fingerprint), parts in pieces.items():
            row = {"sample_id": sample_id, "fingerprint": fingerprint} | self.origin
            if len(parts) == parts[0].pieces:
                rows.append(join(row, parts))
            else:
                rows += [row | {"piece": json.dumps(vars(part))} for part in parts]
        return pa.Table.from_pylist(rows, schema=COMPLETION_SCHEMA)

    def _piece(self, row: dict[str, Any]) -> Piece:
        completion = self.reader.read(
            row["transcript"],
            int(row["num_input_tokens"]),
            list(row["generated_tokens"]),
            error=str(row[ERROR] or ""),
        )
        return Piece(
            number=int(row["piece"]),
            pieces=int(row["pieces"]),
            language=str(row["language"]),
            is_retry=self.is_retry,
            completion=vars(completion),
        )


def join(row: dict[str, Any], pieces: Sequence[Piece]) -> dict[str, Any]:
    """The result row of a transcript from all its pieces, in any order.

    A piece that the engine failed on fails the row at first, so that it is tried again. If it fails
    again, the summary is that of the other pieces.

    Args:
        row: sample_id, fingerprint, method, model, weights and prompt_version.
        pieces: of the transcript.
    """
    from ampere.text.llm import Completion, summary_fields

    pieces = sorted(pieces, key=lambda piece: piece.number)
    try:
        completions = [Completion(**piece.completion) for piece in pieces]
        errors = [completion.error for completion in completions if completion.error]
        has_summary = len(errors) < len(completions)
        if errors and not (has_summary and pieces[0].is_retry):
            raise EngineError(f"the language model failed on this transcript: {errors[0]}")
        fields = summary_fields(completions)
    except (EngineError, AnswerError) as error:
        return error_row(row["sample_id"], row["fingerprint"], error)
    return row | fields | {"language": pieces[0].language}


def join_pieces(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Rows of `COMPLETION_SCHEMA` to result rows; a transcript waits for all its pieces."""
    waiting: dict[str, list[Piece]] = {}
    for batch in batches:
        is_piece = pc.is_valid(batch["piece"])
        rows = []
        for row in batch.filter(is_piece).to_pylist():
            piece = Piece(**json.loads(row.pop("piece")))
            pieces = waiting.setdefault(row["sample_id"], [])
            pieces.append(piece)
            if len(pieces) == piece.pieces:
                rows.append(join(row, waiting.pop(row["sample_id"])))
        results = batch.filter(pc.invert(is_piece)).drop(["piece"])
        yield pa.concat_tables([results, result_table(SUMMARIES, rows)])
