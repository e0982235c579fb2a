"""How well summaries match the truth: the measures of the paper's tables VI and VII."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SummaryScores:
    """Measures over transcripts, each a share between 0 and 1.

    Attributes:
        count: transcripts that name a product.
        name_accuracy: of these, how many got exactly the right name.
        no_output: of these, how many got no name.
        feature_recall: of all true features, how many were given, to the letter.
        feature_precision: of all given features, how many are true.
        chat_count, chat_recognised: transcripts that are chat alone, and how many of them got an empty summary.
    """

    count: int
    name_accuracy: float
    no_output: float
    feature_recall: float
    feature_precision: float
    chat_count: int
    chat_recognised: float

    def __str__(self) -> str:
        return (
            f"name right {self.name_accuracy:.1%} of {self.count}, no name {self.no_output:.1%}, features recall "
            f"{self.feature_recall:.1%} precision {self.feature_precision:.1%}; chat recognised "
            f"{self.chat_recognised:.1%} of {self.chat_count}"
        )


def score_summaries(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> SummaryScores:
    """Score (summary, truth) pairs; each has product_name and product_features, and a truth without name is chat.

    A share over nothing is NaN.
    """
    products = [(found, truth) for found, truth in pairs if truth["product_name"]]
    chats = [found for found, truth in pairs if not truth["product_name"]]
    given = sum(len(found["product_features"]) for found, _ in products)
    true = sum(len(truth["product_features"]) for _, truth in products)
    right = sum(len(set(found["product_features"]) & set(truth["product_features"])) for found, truth in products)
    return SummaryScores(
        count=len(products),
        name_accuracy=_share(sum(f["product_name"] == t["product_name"] for f, t in products), len(products)),
        no_output=_share(sum(not f["product_name"] for f, _ in products), len(products)),
        feature_recall=_share(right, true),
        feature_precision=_share(right, given),
        chat_count=len(chats),
        chat_recognised=_share(sum(not found["product_name"] for found in chats), len(chats)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
