"""What a summarizer returns: the JSON it must answer in, how it is parsed, how it is joined into the model's text."""

import json
from dataclasses import dataclass
from enum import StrEnum

SCHEMA = {
    "type": "object",
    "properties": {
        "product_name": {"type": "string"},
        "product_features": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["product_name", "product_features"],
    "additionalProperties": False,
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
    """A product's name and selling points. Both empty: the text names no product."""

    product_name: str
    product_features: tuple[str, ...]

    @property
    def text(self) -> str:
        """Name and features joined by spaces: the text fed to the model (paper, section III-B)."""
        return " ".join(part for part in (self.product_name, *self.product_features) if part)

    @property
    def status(self) -> Status:
        return Status.OK if self.text else Status.EMPTY

    def to_json(self) -> str:
        """The answer as a model should write it: keys in the order of `SCHEMA`, no spaces."""
        answer = {"product_name": self.product_name, "product_features": list(self.product_features)}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def parse_summary(answer: str) -> Summary:
    """Read a model's answer.

    Raises:
        AnswerError: the answer is no JSON object of `SCHEMA`, for example because it was cut at the token limit.
    """
    try:
        fields = json.loads(answer)
        name, features = fields["product_name"], fields["product_features"]
        strings = isinstance(features, list) and all(isinstance(feature, str) for feature in features)
        if not isinstance(name, str) or not strings:
            raise TypeError("product_name must be a string and product_features a list of strings")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise AnswerError(f"the answer is not a product summary ({error}): {answer[:200]!r}") from error
    return Summary(
        product_name=name.strip(), product_features=tuple(dict.fromkeys(f.strip() for f in features if f.strip()))
    )
