"""Transcripts to a language model's prompts, and its completions to columns of a summary row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils import cached_file

from ampere.text.baichuan import check_plugin, register_config
from ampere.text.baichuan.tokenizer import BaichuanTokenizer
from ampere.text.checks.audit import Flag, audit
from ampere.text.clean import clean
from ampere.text.language import Language, language_of
from ampere.text.language_models import LanguageModel
from ampere.text.pieces import merge, split
from ampere.text.prompts import Messages, Prompt
from ampere.text.summary import AnswerError, Summary, parse_summary, summary_columns

TOKENIZER_CONFIG = "tokenizer_config.json"
JOIN_TOKENS = 8  # a text may have a few more tokens between other texts than alone
MIN_PIECE_TOKENS = 32  # a prompt for less of a transcript than this is not worth it


@dataclass(frozen=True)
class PromptPiece:
    """The prompt for one piece of a transcript.

    Attributes:
        tokens: the whole prompt.
        text: the piece.
        language: of the prompt's wording.
    """

    tokens: list[int]
    text: str
    language: Language


@dataclass(frozen=True)
class Completion:
    """What the model generated for one piece of a transcript.

    `text` is the piece, `error` why the engine failed on it: empty if it did not.
    """

    text: str
    raw_output: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str
    error: str = ""


class PromptBuilder:
    """Makes prompts of transcripts with a model's own tokenizer and chat template.

    Args:
        model: the model.
        prompt: the wording.
        answer_tokens: maximum length of an answer.
        piece_tokens: maximum length of the transcript in one prompt.
        limit: maximum tokens of a prompt and its answer together; None: what the model supports.

    Raises:
        ValueError: the model has no chat template, so it is not an instruction model; or a prompt
            has no room for a transcript.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        *,
        answer_tokens: int,
        piece_tokens: int,
        limit: int | None = None,
    ) -> None:
        self.tokenizer = load_tokenizer(model)
        self.model = model
        self.prompt = prompt
        if self.tokenizer.chat_template is None:
            raise ValueError(
                f"summarize.model {model.source} has no chat template; expected an instruction "
                "(chat) model"
            )
        self.limit = (
            limit
            or getattr(self.config, "max_position_embeddings", None)
            or self.tokenizer.model_max_length
        )
        room = self.limit - answer_tokens - self.overhead - JOIN_TOKENS
        if room < MIN_PIECE_TOKENS:
            raise ValueError(
                f"no room for a transcript: {room} of {self.limit} tokens are left beside the "
                f"prompt {prompt.name} ({self.overhead} tokens) and the answer ({answer_tokens}); "
                f"expected at least {MIN_PIECE_TOKENS}. Raise summarize.max_model_len or lower "
                f"summarize.max_tokens, or use a model with a longer context than {model.source}"
            )
        if piece_tokens < MIN_PIECE_TOKENS:
            raise ValueError(
                f"summarize.piece_tokens is {piece_tokens}; expected at least {MIN_PIECE_TOKENS}"
            )
        self.piece_tokens = min(room, piece_tokens)

    @cached_property
    def config(self) -> Any:
        """The config of the model's text part."""
        # It imports half of torch, which takes seconds, and not every process needs it.
        from transformers import AutoConfig

        register_config()
        config = AutoConfig.from_pretrained(
            self.model.source, trust_remote_code=self.model.trust_remote_code
        )
        return config.get_text_config()

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Strings that may not occur in a transcript.

        These are strings that the tokenizer always turns into one token, and those around the
        transcript in the prompt. Words and single characters that were added to the vocabulary have
        no meaning in the template, and are allowed.
        """
        own = [
            str(token)
            for token in self.tokenizer.added_tokens_decoder.values()
            if token.special or (len(str(token)) > 1 and not str(token).isalnum())
        ]
        return (*own, *self.prompt.marks)

    @cached_property
    def overhead(self) -> int:
        """Tokens of the prompt without a transcript, in the language that takes more of them."""
        return max(len(self._tokens("", language)) for language in Language)

    def clean(self, transcript: str) -> str:
        """The part of a transcript that the model reads."""
        return clean(transcript, self.marks)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text."""
        return [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def prompts(self, transcript: str) -> list[PromptPiece]:
        """The prompts for a transcript, one per piece; none if cleaning leaves nothing of it."""
        text = self.clean(transcript)
        if not text:
            return []
        language = language_of(text)
        return [
            PromptPiece(self._tokens(piece, language), piece, language)
            for piece in split(text, self.piece_tokens, self.count_tokens)
        ]

    def kv_bytes_per_token(self) -> int:
        """Bytes of the attention states (keys and values) of one token."""
        heads = self.config.num_attention_heads
        head_size = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        kv_heads = getattr(self.config, "num_key_value_heads", None) or heads
        value_bytes = 4 if self.model.dtype == "float32" else 2
        return 2 * self.config.num_hidden_layers * kv_heads * head_size * value_bytes

    def _tokens(self, text: str, language: Language) -> list[int]:
        messages = self.prompt.wordings[language].messages(text)
        try:
            return self._render(messages)
        except TemplateError:  # some templates have no system turn
            system, first, *rest = messages
            return self._render(
                [first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest]
            )

    def _render(self, messages: Messages) -> list[int]:
        return self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_dict=False,
            **self.model.template_options,
        )


def load_tokenizer(model: LanguageModel) -> Any:
    """A language model's own tokenizer.

    If the folder names no special class, tokenizer.json is loaded without `AutoTokenizer`, which
    first imports torch and all of generation: each process around an engine would have to wait for
    these and hold them in memory.
    """
    path = cached_file(model.source, TOKENIZER_CONFIG, _raise_exceptions_for_missing_entries=False)
    named = json.loads(Path(path).read_text("utf-8")).get("tokenizer_class") if path else None
    if named in ("PreTrainedTokenizerFast", PreTrainedTokenizerFast.__name__):
        return PreTrainedTokenizerFast.from_pretrained(model.source)
    if named == BaichuanTokenizer.__name__:
        check_plugin()
        return BaichuanTokenizer.from_pretrained(model.source)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.source, trust_remote_code=model.trust_remote_code)


def summary_fields(completions: Sequence[Completion]) -> dict[str, Any]:
    """The columns of a summary row that follow from the completions for one transcript.

    A piece without a summary is flagged, and the summary is that of the other pieces.

    Args:
        completions: at least one, for all pieces of the transcript, in their order.

    Raises:
        AnswerError: no completion is a summary.
    """
    summaries, errors = [], []
    for number, completion in enumerate(completions, start=1):
        try:
            summaries.append(completion_summary(completion))
        except AnswerError as error:
            errors.append(f"{number} of {len(completions)}: {error}")
    if not summaries:
        raise AnswerError(f"no piece of the transcript has a summary; piece {errors[0]}")
    summary = summaries[0] if len(summaries) == 1 else merge(summaries)
    heard = "".join(completion.text for completion in completions)
    flags = [f"{Flag.FAILED_PIECE}: {error:.300}" for error in errors]
    return summary_columns(summary) | {
        "flags": flags + audit(heard, summary.product_name, summary.product_features),
        "raw_output": "\n".join(completion.raw_output for completion in completions),
        "pieces": len(completions),
        "prompt_tokens": sum(completion.prompt_tokens for completion in completions),
        "generated_tokens": sum(completion.generated_tokens for completion in completions),
        "finish_reason": completions[-1].finish_reason,
    }


def completion_summary(completion: Completion) -> Summary:
    """Parse the model's answer for one piece.

    Raises:
        AnswerError: the answer is not a summary, or the engine failed.
    """
    if completion.error:
        raise AnswerError(completion.error)
    try:
        return parse_summary(completion.raw_output)
    except AnswerError as error:
        raise AnswerError(f"{error}; the answer ended by {completion.finish_reason}") from error
