"""What a summarizer returns: the JSON it must answer in, how it is parsed, how it is joined into the model's text."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Of all that makes a row of a transcript and of the answers on it: clean, pieces, audit, sounds, numerals, keybert,
# uie, the models' template options and this file. Raise it with a change there; rows of another version are stale.
TEXT_VERSION = 5
MAX_FEATURES = 10
TEXT = {"type": "string"}
# `is_product` comes first, so that a model that says no cannot go on to invent a product: the grammar made of this
# schema leaves it the empty answer only.
SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "is_product": {"const": True},
                "product_name": TEXT,
                "product_features": {"type": "array", "items": TEXT, "maxItems": MAX_FEATURES},
            },
            "required": ["is_product", "product_name", "product_features"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "is_product": {"const": False},
                "product_name": {"const": ""},
                "product_features": {"type": "array", "items": TEXT, "maxItems": 0},
            },
            "required": ["is_product", "product_name", "product_features"],
            "additionalProperties": False,
        },
    ]
}


class Status(StrEnum):
    """What became of one transcript or title."""

    OK = "ok"
    EMPTY = "empty"  # the model found no product in the transcript
    MISSING = "missing"  # there was no transcript or title to read


class AnswerError(ValueError):
    """A language model's answer is no summary; costs its row, never the job."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A product's name and selling points. Both empty: the text is chat only and names no product."""

    product_name: str
    product_features: tuple[str, ...]

    @property
    def text(self) -> str:
        """Name and features joined by spaces: the text fed to the model (paper, section III-B)."""
        return " ".join(part for part in (self.product_name, *self.product_features) if part)

    def to_json(self) -> str:
        """The answer as a model should write it: keys in the order of `SCHEMA`, no spaces."""
        answer = {
            "is_product": bool(self.text),
            "product_name": self.product_name,
            "product_features": list(self.product_features),
        }
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


# What the model is fed of a summary, by method: the three rows "LLM" of the paper's table V.
METHODS: dict[str, Callable[[Summary], str]] = {
    "llm": lambda summary: summary.text,
    "llm-name": lambda summary: summary.product_name,
    "llm-features": lambda summary: " ".join(summary.product_features),
}
NO_PRODUCT = Summary(product_name="", product_features=())


def summary_columns(summary: Summary, text: str) -> dict[str, Any]:
    """A summary's columns in the table; no text is a null, so that it is not mistaken for an empty one."""
    return {
        "product_name": summary.product_name,
        "product_features": list(summary.product_features),
        "text": text or None,
        "status": Status.OK if text else Status.EMPTY,
    }


def parse_summary(answer: str) -> Summary:
    """Read a model's answer.

    Raises:
        AnswerError: the answer is no JSON object of `SCHEMA`, for example because it was cut at the token limit, or
            holds half a character.
    """
    try:
        fields = json.loads(answer)
        is_product, name, features = (
            fields[key] for key in ("is_product", "product_name", "product_features")
        )
        strings = isinstance(features, list) and all(
            isinstance(feature, str) for feature in features
        )
        if not isinstance(is_product, bool) or not isinstance(name, str) or not strings:
            raise TypeError(
                "is_product must be true or false, product_name a string, product_features strings"
            )
        if not is_product and (name or features):
            raise TypeError("is_product is false, and yet there is a name or a feature")
        "".join(
            [name, *features]
        ).encode()  # half a character, escaped as \ud83d, could not be written to the table
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeEncodeError) as error:
        raise AnswerError(
            f"the answer is not a product summary ({error}): {answer[:200]!r}"
        ) from error
    if not is_product:
        return NO_PRODUCT
    return Summary(
        product_name=name.strip(),
        product_features=tuple(dict.fromkeys(f.strip() for f in features if f.strip())),
    )
