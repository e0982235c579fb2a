"""How well summaries match the truth: the measures of the paper's tables VI and VII."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz import fuzz

from ampere.bootstrap import Rate, interval, resampled_sums
from ampere.text.checks.audit import SUPPORT
from ampere.text.checks.sounds import agree, sounds

Row = Mapping[str, Any]
MEASURES = ("name_accuracy", "no_output", "feature_recall", "feature_precision", "chat_recognised")


@dataclass(frozen=True, kw_only=True)
class SummaryScores:
    """Measures over transcripts.

    Attributes:
        unanswered: transcripts without a summary. They count as wrong: as products without a name,
            or as chat that is not recognized.
        count: transcripts that name a product.
        name_accuracy: share of these with exactly the right name.
        no_output: share of these without a name.
        feature_recall: share of the true features that were given.
        feature_precision: share of the given features that are true.
        chat_count: transcripts that are only chat.
        chat_recognised: share of these with an empty summary.
    """

    unanswered: int
    count: int
    name_accuracy: Rate
    no_output: Rate
    feature_recall: Rate
    feature_precision: Rate
    chat_count: int
    chat_recognised: Rate

    def __str__(self) -> str:
        return (
            f"name right {self.name_accuracy.value:.1%} of {self.count}, "
            f"no name {self.no_output.value:.1%}, "
            f"features recall {self.feature_recall.value:.1%} "
            f"precision {self.feature_precision.value:.1%}; "
            f"chat recognized {self.chat_recognised.value:.1%} of {self.chat_count}"
        )


def score_summaries(pairs: Sequence[tuple[Row | None, Row]]) -> SummaryScores:
    """Score (summary, truth) pairs.

    A name is right if it has the letters and characters of the true name; case, spaces and
    punctuation do not matter. A feature is right if three quarters of its sounds are those of a
    true feature, and numbers and negations agree. So homophones and an additional "很" do no harm,
    and another number or an additional "不" does. Each true feature counts once.

    Args:
        pairs: rows with product_name and product_features. A truth with an empty name is chat.
            A summary whose name is None comes from a method that does not separate names from
            features; any of its phrases may be the name. None instead of a summary: there is none.
    """
    counts = np.array([_counts(summary, truth) for summary, truth in pairs], float)
    shares = _shares(counts.reshape(len(pairs), 2, len(MEASURES)))
    chats = sum(not truth["product_name"] for _, truth in pairs)
    return SummaryScores(
        unanswered=sum(summary is None for summary, _ in pairs),
        count=len(pairs) - chats,
        chat_count=chats,
        **dict(zip(MEASURES, shares, strict=True)),
    )


def _shares(counts: np.ndarray) -> list[Rate]:
    """The share of each measure, with an interval by bootstrap over the transcripts.

    Args:
        counts: float [N, 2, M], numerators and denominators of each transcript.
    """
    if not len(counts):
        return [Rate(np.nan, np.nan, np.nan)] * len(MEASURES)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        values, draws = (
            sums[..., 0, :] / sums[..., 1, :]
            for sums in (counts.sum(axis=0), resampled_sums(counts))
        )
    num_counted = (counts[:, 1] > 0).sum(axis=0)
    return [
        _share(float(values[i]), draws[:, i], int(num_counted[i])) for i in range(len(MEASURES))
    ]


def _share(value: float, draws: np.ndarray, num_counted: int) -> Rate:
    """A share with its interval: the draws', or Wilson's at 0 and 1, where all draws are equal.

    Args:
        value: the share.
        draws: float [draws], the share in each bootstrap sample.
        num_counted: transcripts that count for the share.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if value not in (0, 1):
        return Rate(value, *interval(draws))
    wilson = binomtest(int(value) * num_counted, num_counted).proportion_ci(method="wilson")
    return Rate(value, float(wilson.low), float(wilson.high))


def _counts(summary: Row | None, truth: Row) -> tuple[list[int], list[int]]:
    """Numerators and denominators of one transcript, in the order of `MEASURES`."""
    name = "" if summary is None else summary["product_name"]
    given = [] if summary is None else list(summary["product_features"] or ())
    if not truth["product_name"]:
        return [0, 0, 0, 0, summary is not None and not name and not given], [0, 0, 0, 0, 1]
    names = given if name is None else [name]
    is_right = any(_normalized(name) == _normalized(truth["product_name"]) for name in names)
    true = list(truth["product_features"])
    matched = _count_matches(given, true)
    return [is_right, not any(names), matched, matched, 0], [1, 1, len(true), len(given), 0]


def _count_matches(given: Sequence[str], true: Sequence[str]) -> int:
    """How many given phrases match a true one; the most similar pairs first, each phrase once."""
    pairs = [
        (fuzz.ratio(sounds(g), sounds(t)), i, j)
        for i, g in enumerate(given)
        for j, t in enumerate(true)
    ]
    used_given: set[int] = set()
    used_true: set[int] = set()
    for similarity, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        is_free = i not in used_given and j not in used_true
        if similarity >= SUPPORT and is_free and agree(given[i], true[j]):
            used_given.add(i)
            used_true.add(j)
    return len(used_given)


def _normalized(text: str) -> str:
    """Letters and digits only, in lower case, full-width ones as ASCII."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
