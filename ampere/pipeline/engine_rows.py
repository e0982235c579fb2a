"""Rows before and after an engine: transcripts to prompts, answers to result rows.

Both run in actors beside the engines. A long transcript is several rows on the way, and `assembled` brings together
those that came apart.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import SummarizeSettings
from ampere.pipeline.chosen_model import asker
from ampere.pipeline.runner import error_row, result_schema, result_table
from ampere.records import SUMMARIES
from ampere.text.summary import METHODS, AnswerError

# Of a row that is one piece's part of a result, as JSON; null where the row is a whole result.
PART_SCHEMA = result_schema(SUMMARIES).append(pa.field("part", pa.string()))


class EngineError(RuntimeError):
    """The engine could not answer on a row, though it lives on."""


class FormPrompts:
    """The actor before an engine: transcripts to prompts as tokens, a row for each piece.

    Args:
        settings: of the stage.
        uri, version: of the samples table that the positions are of.
    """

    def __init__(self, settings: SummarizeSettings, uri: str, version: int) -> None:
        self.asker = asker(settings)
        self.samples = lance.dataset(uri, version=version)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with sample_id, fingerprint and position."""
        texts = self.samples.take(batch["position"].to_pylist(), columns=["text"])["text"].to_pylist()
        rows = []
        for row, text in zip(batch.select(["sample_id", "fingerprint"]).to_pylist(), texts, strict=True):
            questions = self.asker.questions(text)
            for number, question in enumerate(questions):
                rows.append(
                    row
                    | {"piece": number, "pieces": len(questions), "heard": question.text}
                    | {"language": str(question.language), "tokenized_prompt": question.tokens}
                )
        return pa.Table.from_pylist(rows)


class ReadAnswers:
    """The actor after an engine: answers to result rows; those of a transcript whose pieces are not all here, to rows
    with `part`.

    Args:
        settings: of the stage.
        origin: model and prompt_version of the rows.
    """

    def __init__(self, settings: SummarizeSettings, origin: dict[str, str]) -> None:
        self.asker = asker(settings)
        self.settings = settings
        self.origin = {"method": settings.method} | origin

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Columns of `FormPrompts` and of the engine."""
        found: dict[tuple[str, str], list[Part]] = {}
        for i, key in enumerate(zip(batch["sample_id"], batch["fingerprint"], strict=True)):
            found.setdefault(key, []).append(self._part({name: column[i] for name, column in batch.items()}))
        rows: list[dict[str, Any]] = []
        for (sample_id, print_), parts in found.items():
            row = {"sample_id": sample_id, "fingerprint": print_} | self.origin
            if len(parts) == parts[0].pieces:
                rows.append(whole_row(row, parts))
            else:
                rows += [row | {"part": json.dumps(vars(part))} for part in parts]
        return pa.Table.from_pylist(rows, schema=PART_SCHEMA)

    def _part(self, row: dict[str, Any]) -> "Part":
        from ampere.text.llm import Answer

        tokens = list(row["generated_tokens"])
        answer = Answer(
            text=row["heard"],
            raw_output=self.asker.decode(tokens),
            prompt_tokens=int(row["num_input_tokens"]),
            generated_tokens=len(tokens),
            finish_reason="length" if len(tokens) >= self.settings.max_tokens else "stop",
        )
        return Part(
            piece=int(row["piece"]),
            pieces=int(row["pieces"]),
            language=str(row["language"]),
            engine_error=str(row["__inference_error__"] or ""),
            answer=vars(answer),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """What came of one piece of a transcript; `answer` has the fields of `text.llm.Answer`."""

    piece: int
    pieces: int
    language: str
    engine_error: str
    answer: dict[str, Any]


def whole_row(row: dict[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The result row of a transcript whose parts are all there, in any order.

    Args:
        row: sample_id, fingerprint, method, model and prompt_version.
        parts: of the transcript.
    """
    from ampere.text.llm import Answer, summary_fields

    parts = sorted(parts, key=lambda part: part.piece)
    try:
        for part in parts:
            if part.engine_error:
                raise EngineError(f"the language model failed on this transcript: {part.engine_error}")
        fields = summary_fields([Answer(**part.answer) for part in parts], METHODS[row["method"]])
    except (EngineError, AnswerError) as error:
        return error_row(row["sample_id"], row["fingerprint"], error)
    return row | fields | {"language": parts[0].language}


def assembled(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Result rows as they come, those of transcripts that came in parts once all parts are here."""
    waiting: dict[str, list[Part]] = {}
    for batch in batches:
        in_parts = pc.is_valid(batch["part"])
        rows = []
        for row in batch.filter(in_parts).to_pylist():
            part = Part(**json.loads(row.pop("part")))
            parts = waiting.setdefault(row["sample_id"], [])
            parts.append(part)
            if len(parts) == part.pieces:
                rows.append(whole_row(row, waiting.pop(row["sample_id"])))
        done = batch.filter(pc.invert(in_parts)).drop(["part"])
        yield pa.concat_tables([done, result_table(SUMMARIES, rows)])
