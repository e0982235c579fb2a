"""Rows before and after an engine: transcripts to prompts, answers to result rows.

Both run in actors beside the engines. A long transcript is several rows on the way, and `assembled` brings together
those that came apart. A row whose result is known before the engine, such as an error, passes it by.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.stage import error_row, result_schema, result_table
from ampere.pipeline.summarize.model import asker, chosen_model
from ampere.records import SUMMARIES
from ampere.text.summary import METHODS, AnswerError, Status

PROMPT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("piece", pa.int32()),
        ("pieces", pa.int32()),
        ("heard", pa.string()),  # the piece
        ("language", pa.string()),
        ("tokenized_prompt", pa.list_(pa.int32())),
        (
            "settled",
            pa.string(),
        ),  # a result row as JSON, of a transcript that is not asked about; else empty
        ("__inference_error__", pa.string()),  # Ray's engines leave out rows where it is not empty
    ]
)
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
        self.method = settings.method
        self.samples = lance.dataset(uri, version=version)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with sample_id, fingerprint and position."""
        texts = self.samples.take(batch["position"].to_pylist(), columns=["text"])[
            "text"
        ].to_pylist()
        rows = []
        for row, text in zip(
            batch.select(["sample_id", "fingerprint"]).to_pylist(), texts, strict=True
        ):
            try:
                rows += self._prompts(row, text) or [
                    settled(missing_row(**row, method=self.method))
                ]
            except Exception as error:  # the per-row edge: one strange transcript costs one row
                rows.append(settled(error_row(**row, error=error)))
        return pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA)

    def _prompts(self, row: dict[str, str], text: str) -> list[dict[str, Any]]:
        questions = self.asker.questions(text)
        return [
            row
            | {"piece": number, "pieces": len(questions), "heard": question.text}
            | {"language": str(question.language), "tokenized_prompt": question.tokens}
            | {"settled": "", "__inference_error__": ""}
            for number, question in enumerate(questions)
        ]


def settled(result: dict[str, Any]) -> dict[str, Any]:
    """The row of `PROMPT_SCHEMA` that carries a result past the engine."""
    keys = {name: result[name] for name in ("sample_id", "fingerprint")}
    blank = {"piece": 0, "pieces": 1, "heard": "", "language": "", "tokenized_prompt": []}
    return keys | blank | {"settled": json.dumps(result), "__inference_error__": "settled"}


def missing_row(sample_id: str, fingerprint: str, method: str) -> dict[str, Any]:
    """The result row of a clip without a transcript, or with one that holds nothing to read."""
    row = {"sample_id": sample_id, "fingerprint": fingerprint, "method": method}
    return row | {"status": Status.MISSING, "flags": []}


class ReadAnswers:
    """The actor after an engine: answers to result rows; those of a transcript whose pieces are not all here, to rows
    with `part`.

    Args:
        settings: of the stage.
        origin: model and prompt_version of the rows.
        max_model_len: tokens of a prompt and its answer together at which the engine stops.
    """

    def __init__(
        self, settings: SummarizeSettings, origin: dict[str, str], max_model_len: int
    ) -> None:
        from ampere.text.llm import load_tokenizer

        self.tokenizer = load_tokenizer(chosen_model(settings)[0])
        self.settings = settings
        self.max_model_len = max_model_len
        self.origin = {"method": settings.method} | origin

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Columns of `PROMPT_SCHEMA` and of the engine."""
        found: dict[tuple[str, str], list[Part]] = {}
        rows: list[dict[str, Any]] = []
        for i, key in enumerate(zip(batch["sample_id"], batch["fingerprint"], strict=True)):
            if batch["settled"][i]:
                rows.append(json.loads(batch["settled"][i]))
            else:
                found.setdefault(key, []).append(
                    self._part({name: column[i] for name, column in batch.items()})
                )
        for (sample_id, print_), parts in found.items():
            row = {"sample_id": sample_id, "fingerprint": print_} | self.origin
            if len(parts) == parts[0].pieces:
                rows.append(whole_row(row, parts))
            else:
                rows += [row | {"part": json.dumps(vars(part))} for part in parts]
        return pa.Table.from_pylist(rows, schema=PART_SCHEMA)

    def _part(self, row: dict[str, Any]) -> "Part":
        from ampere.text.llm import Answer

        tokens, prompt_tokens = list(row["generated_tokens"]), int(row["num_input_tokens"])
        error = str(row["__inference_error__"] or "")
        answer = Answer(
            text=row["heard"],
            raw_output=self.tokenizer.decode(tokens, skip_special_tokens=True),
            prompt_tokens=prompt_tokens,
            generated_tokens=len(tokens),
            finish_reason=self._finish_reason(prompt_tokens, len(tokens)),
        )
        return Part(
            piece=int(row["piece"]),
            pieces=int(row["pieces"]),
            language=str(row["language"]),
            engine_error=error or self._lack_of_room(prompt_tokens, len(tokens)),
            answer=vars(answer),
        )

    def _finish_reason(self, prompt: int, answer: int) -> str:
        """Why an answer ended, inferred from the numbers of tokens, for Ray does not hand vLLM's own word on."""
        at_limit = answer >= self.settings.max_tokens or prompt + answer >= self.max_model_len
        return "length" if at_limit else "stop"

    def _lack_of_room(self, prompt: int, answer: int) -> str:
        """Why an engine that was sized by other transcripts cut the answer; empty if none was.

        No fault of the answer: sized anew, an engine may have room for it. Where the settings name the size it has not.
        """
        sized = self.settings.max_model_len is None
        if not sized or answer >= self.settings.max_tokens or prompt + answer < self.max_model_len:
            return ""
        return f"its engine had room for {self.max_model_len} tokens, and {prompt} of the prompt left too few to answer in"


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
                raise EngineError(
                    f"the language model failed on this transcript: {part.engine_error}"
                )
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
