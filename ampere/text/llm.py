"""From a transcript to a language model's prompts, and from its answers to the columns of a summary row."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils import cached_file

from ampere.text.checks.audit import audit
from ampere.text.clean import clean
from ampere.text.language import Language, language_of
from ampere.text.language_models import LanguageModel
from ampere.text.pieces import merge, split
from ampere.text.prompts import Messages, Prompt
from ampere.text.summary import AnswerError, Summary, parse_summary, summary_columns

TOKENIZER_CONFIG = "tokenizer_config.json"
JOIN_TOKENS = 8  # a text's tokens may be a few more between others than alone
SMALLEST_ROOM = 32  # tokens; less of a transcript than this is not worth a prompt


@dataclass(frozen=True)
class Question:
    """What is asked of the model about one piece of a transcript.

    Attributes:
        tokens: the whole prompt.
        text: the piece.
        language: of the prompt's wording.
    """

    tokens: list[int]
    text: str
    language: Language


@dataclass(frozen=True)
class Answer:
    """What the model wrote about one piece."""

    text: str
    raw_output: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str


class Asker:
    """Makes prompts of transcripts with a model's own tokenizer and chat template.

    Args:
        model: whose.
        prompt: the wording.
        answer: tokens of the longest answer.
        piece: most tokens of a transcript in one prompt.
        limit: tokens of the longest prompt and answer together; None: as many as the model can.

    Raises:
        ValueError: the model has no chat template, so it is no instruction model; or there is no room for a transcript
            beside the prompt and the answer, or in a piece.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        *,
        answer: int,
        piece: int,
        limit: int | None = None,
    ) -> None:
        self.tokenizer = load_tokenizer(model)
        self.model = model
        self.prompt = prompt
        if model.chat_template is None and self.tokenizer.chat_template is None:
            raise ValueError(
                f"summarize.model {model.source} has no chat template; take an instruction (chat) model"
            )
        self.limit = (
            limit
            or getattr(self.config, "max_position_embeddings", None)
            or self.tokenizer.model_max_length
        )
        room = self.limit - answer - self.overhead - JOIN_TOKENS
        if room < SMALLEST_ROOM:
            raise ValueError(
                f"the prompt {prompt.name} has {self.overhead} tokens and an answer may have {answer}: of "
                f"{self.limit} (summarize.max_model_len, or what {model.source} can read) {room} are left for a "
                f"transcript, and it needs {SMALLEST_ROOM}"
            )
        if piece < SMALLEST_ROOM:
            raise ValueError(
                f"summarize.piece_tokens is {piece}; less than {SMALLEST_ROOM} tokens of a transcript are not worth a "
                "prompt. Raise it"
            )
        self.room = min(room, piece)

    @cached_property
    def config(self) -> Any:
        """The model's, of its text part."""
        from transformers import (
            AutoConfig,
        )  # half of torch: seconds, for those alone who ask for it

        found = AutoConfig.from_pretrained(
            self.model.source, trust_remote_code=self.model.trust_remote_code
        )
        return found.get_text_config()

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Strings that the tokenizer turns into one token wherever they stand, and what the prompt puts around a
        transcript. Words and single characters that were added to the vocabulary speak for nobody, and stay."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = [
            str(token)
            for token in added
            if token.special or (len(str(token)) > 1 and not str(token).isalnum())
        ]
        return (*found, *self.model.marks, *self.prompt.marks)

    @cached_property
    def overhead(self) -> int:
        """Tokens of the prompt around a transcript, in the language that takes more of them."""
        return max(len(self._tokens("", language)) for language in Language)

    def clean(self, transcript: str) -> str:
        """What is read of a transcript."""
        return clean(transcript, self.marks)

    def count(self, texts: list[str]) -> list[int]:
        """Tokens of some texts."""
        return [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def questions(self, transcript: str) -> list[Question]:
        """The prompts for a transcript: one, or as many as pieces are needed; none if cleaning leaves nothing of it."""
        text = self.clean(transcript)
        if not text:
            return []
        language = language_of(text)
        return [
            Question(self._tokens(p, language), p, language)
            for p in split(text, self.room, self.count)
        ]

    def token_bytes(self) -> int:
        """Attention states of one token, in bytes."""
        heads = self.config.num_attention_heads
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        shared = getattr(self.config, "num_key_value_heads", None) or heads
        return (
            2
            * self.config.num_hidden_layers
            * shared
            * size
            * (4 if self.model.dtype == "float32" else 2)
        )

    def _tokens(self, text: str, language: Language) -> list[int]:
        messages = self.prompt.wordings[language].messages(text)
        try:
            return self._render(messages)
        except TemplateError:  # some templates know no system turn
            system, first, *rest = messages
            return self._render(
                [first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest]
            )

    def _render(self, messages: Messages) -> list[int]:
        return self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.model.chat_template,
            add_generation_prompt=True,
            return_dict=False,
            **self.model.template_options,
        )


def load_tokenizer(model: LanguageModel) -> Any:
    """A language model's own tokenizer.

    One whose folder names no class beyond tokenizer.json is loaded as such: `AutoTokenizer` imports torch and all of
    generation first, which each process around an engine would have to wait for and keep in memory.
    """
    path = cached_file(model.source, TOKENIZER_CONFIG, _raise_exceptions_for_missing_entries=False)
    named = json.loads(Path(path).read_text("utf-8")).get("tokenizer_class") if path else None
    if named in ("PreTrainedTokenizerFast", PreTrainedTokenizerFast.__name__):
        return PreTrainedTokenizerFast.from_pretrained(model.source)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.source, trust_remote_code=model.trust_remote_code)


def summary_fields(answers: Sequence[Answer], text_of: Callable[[Summary], str]) -> dict[str, Any]:
    """The columns of a summary row that come from the answers on all pieces of its transcript, in their order.

    Args:
        answers: at least one.
        text_of: what the model is fed of a summary.

    Raises:
        AnswerError: an answer is no summary.
    """
    summaries = []
    for number, answer in enumerate(answers, start=1):
        try:
            summaries.append(parse_summary(answer.raw_output))
        except AnswerError as error:
            where = f" to piece {number} of {len(answers)}" if len(answers) > 1 else ""
            raise AnswerError(
                f"{error}; the answer{where} ended by {answer.finish_reason}"
            ) from error
    summary = summaries[0] if len(summaries) == 1 else merge(summaries)
    heard = "".join(answer.text for answer in answers)
    return summary_columns(summary, text_of(summary)) | {
        "flags": audit(heard, summary.product_name, summary.product_features),
        "raw_output": "\n".join(answer.raw_output for answer in answers),
        "pieces": len(answers),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "generated_tokens": sum(answer.generated_tokens for answer in answers),
        "finish_reason": answers[-1].finish_reason,
    }
