"""Product summaries: the JSON schema of a model's answer, its parser, and the table's columns."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Version of the code that makes rows of transcripts and answers: normalize, clean, pieces, audit,
# sounds, numerals, keybert, uie, the models' template options and this file. Increment it when a
# change there changes rows; rows of another version are stale.
TEXT_VERSION = 6
MAX_FEATURES = 10
TEXT = {"type": "string"}
# `is_product` comes first, so that a model that answers false cannot invent a product after it: the
# grammar made of this schema then allows only the empty answer.
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
    """The result for one transcript or title."""

    OK = "ok"
    EMPTY = "empty"  # the transcript names no product
    MISSING = "missing"  # there is no transcript or title that can be read


class AnswerError(ValueError):
    """A language model's answer is not a summary: the row fails, not the job."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A product's name and selling points; both empty if the transcript is only chat."""

    product_name: str
    product_features: tuple[str, ...]

    @property
    def text(self) -> str:
        """Name and features joined by spaces, the embedding model's text (paper, section III-B)."""
        return " ".join(part for part in (self.product_name, *self.product_features) if part)

    def to_json(self) -> str:
        """The answer that a model should give: keys in the order of `SCHEMA`, no spaces."""
        answer = {
            "is_product": bool(self.text),
            "product_name": self.product_name,
            "product_features": list(self.product_features),
        }
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


# The embedding model's text by source: the three "LLM" rows of the paper's table V.
LLM_TEXTS: dict[str, Callable[[Summary], str]] = {
    "llm": lambda summary: summary.text,
    "llm-name": lambda summary: summary.product_name,
    "llm-features": lambda summary: " ".join(summary.product_features),
}
NO_PRODUCT = Summary(product_name="", product_features=())


def summary_columns(summary: Summary) -> dict[str, Any]:
    """A summary's columns in the table; without a text the status is empty."""
    text = summary.text
    return {
        "product_name": summary.product_name,
        "product_features": list(summary.product_features),
        "text": text or None,
        "status": Status.OK if text else Status.EMPTY,
    }


def parse_summary(answer: str) -> Summary:
    """Parse a model's answer.

    Raises:
        AnswerError: the answer is not a JSON object of `SCHEMA`, for example because it was cut at
            the token limit, or it contains an unpaired surrogate (invalid Unicode).
    """
    try:
        fields = json.loads(answer)
        is_product, name, features = (
            fields[key] for key in ("is_product", "product_name", "product_features")
        )
        has_strings = isinstance(features, list) and all(isinstance(f, str) for f in features)
        if not isinstance(is_product, bool) or not isinstance(name, str) or not has_strings:
            raise TypeError(
                "is_product must be true or false, product_name a string, product_features strings"
            )
        if not is_product and (name or features):
            raise TypeError("is_product is false, but there is a name or a feature")
        # An unpaired surrogate, escaped as \ud83d, could not be written to the table.
        "".join([name, *features]).encode()
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
