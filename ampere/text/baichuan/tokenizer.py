"""The tokenizer of Baichuan models, from their SentencePiece model."""

from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from ampere.text.baichuan import VOCABULARY_OF_BAICHUAN_1

# Baichuan 2 puts one of these before each turn of a chat, in code that comes with its weights.
MARKS = ("<reserved_106>", "<reserved_107>")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<reserved_106>"
    "{% elif message.role == 'assistant' %}<reserved_107>{% endif %}"
    "{{ message.content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<reserved_107>{% endif %}"
)
SPACE = "▁"  # in SentencePiece's own tokens and in the text that it searches for them


class BaichuanTokenizer(PreTrainedTokenizerFast):
    """Reads tokenizer.model; the class that comes with the weights fails in transformers 5.

    Baichuan 1 has other marks of turns, and no chat template here.
    """

    @classmethod
    def convert_from_spm_model(cls, **kwargs: Any) -> dict[str, Any]:
        """Complete what transformers has read from tokenizer.model and hands over.

        Runs of spaces are searched after spaces have become `SPACE`. Only control tokens and the
        marks of turns are special, that is, left out of decoded text.
        """
        vocabulary = kwargs["vocab"]
        special = {str(token): token.special for token in kwargs.pop("additional_special_tokens")}
        special |= {mark: True for mark in MARKS if mark in vocabulary}
        kwargs["added_tokens_decoder"] = {
            vocabulary[text]: AddedToken(text, normalized=SPACE in text, special=is_special)
            for text, is_special in special.items()
        }
        if len(vocabulary) != VOCABULARY_OF_BAICHUAN_1:
            kwargs["chat_template"] = kwargs.get("chat_template") or TEMPLATE
        return kwargs
