"""How well summaries match the truth: the measures of the paper's tables VI and VII, with confidence intervals."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz import fuzz

from ampere.text.checks.audit import SUPPORT
from ampere.text.checks.sounds import agree, sounds

Row = Mapping[str, Any]
MEASURES = ("name_accuracy", "no_output", "feature_recall", "feature_precision", "chat_recognised")
RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A share between 0 and 1, and the interval that holds it in 95 of 100 samples of as many transcripts.

    All NaN where the share is one of nothing.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class SummaryScores:
    """Measures over transcripts.

    Attributes:
        unanswered: transcripts that have no summary. They count as wrong: without a name, or as chat not recognised.
        count: transcripts that name a product.
        name_accuracy: of these, how many got exactly the right name.
        no_output: of these, how many got none.
        feature_recall: of all true features, how many were given.
        feature_precision: of all given features, how many are true.
        chat_count, chat_recognised: transcripts that are chat alone, and how many of them got an empty summary.
    """

    unanswered: int
    count: int
    name_accuracy: Share
    no_output: Share
    feature_recall: Share
    feature_precision: Share
    chat_count: int
    chat_recognised: Share

    def __str__(self) -> str:
        return (
            f"name right {self.name_accuracy.value:.1%} of {self.count}, no name {self.no_output.value:.1%}, features "
            f"recall {self.feature_recall.value:.1%} precision {self.feature_precision.value:.1%}; chat recognised "
            f"{self.chat_recognised.value:.1%} of {self.chat_count}"
        )


def score_summaries(pairs: Sequence[tuple[Row | None, Row]]) -> SummaryScores:
    """Score (summary, truth) pairs.

    A name is right if it has the true one's letters and characters, whatever the case, spaces and marks. A feature is
    right if three quarters of its sounds are those of a true feature, each of which counts once: homophones and an "很"
    more or less do no harm, another number or a "不" more or less does.

    Args:
        pairs: each has product_name and product_features. A truth without name is chat. A summary whose name is None
            comes from a method that does not tell names from features, and any of its phrases may be the name. None
            in place of a summary: there is none.
    """
    counts = np.array([_counts(found, truth) for found, truth in pairs], float).reshape(
        len(pairs), 2, len(MEASURES)
    )
    shares = dict(zip(MEASURES, _shares(counts), strict=True))
    chats = sum(not truth["product_name"] for _, truth in pairs)
    unanswered = sum(found is None for found, _ in pairs)
    return SummaryScores(
        unanswered=unanswered, count=len(pairs) - chats, chat_count=chats, **shares
    )


def _shares(counts: np.ndarray) -> list[Share]:
    """Shares of the sums, with percentile bootstrap intervals over the transcripts.

    Where a share is 0 or 1 all draws are alike, and its interval is Wilson's for as many transcripts as count.

    Args:
        counts: float [N, 2, M], numerators and denominators of each transcript.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if not len(counts):
        return [Share(np.nan, np.nan, np.nan)] * len(MEASURES)
    weights = np.random.default_rng(0).multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES
    )
    sums = np.concatenate(
        [counts.sum(axis=0)[None], np.einsum("rn,nsm->rsm", weights.astype(float), counts)]
    )
    with np.errstate(invalid="ignore"):
        values, *draws = sums[:, 0] / sums[:, 1]
    low, high = np.full((2, len(MEASURES)), np.nan)
    told = ~np.isnan(values)  # a draw without any row that counts says nothing
    low[told], high[told] = np.nanpercentile(np.array(draws)[:, told], [2.5, 97.5], axis=0)
    for place in np.flatnonzero((values == 0) | (values == 1)):
        counted = int((counts[:, 1, place] > 0).sum())
        wilson = binomtest(int(values[place]) * counted, counted).proportion_ci(method="wilson")
        low[place], high[place] = wilson.low, wilson.high
    return [Share(*map(float, share)) for share in zip(values, low, high, strict=True)]


def _counts(found: Row | None, truth: Row) -> tuple[list[int], list[int]]:
    """Numerators and denominators of one transcript, in the order of `MEASURES`."""
    name = "" if found is None else found["product_name"]
    given = [] if found is None else list(found["product_features"] or ())
    if not truth["product_name"]:
        return [0, 0, 0, 0, found is not None and not name and not given], [0, 0, 0, 0, 1]
    names = given if name is None else [name]
    right = any(_plain(name) == _plain(truth["product_name"]) for name in names)
    true = list(truth["product_features"])
    matched = _matches(given, true)
    return [right, not any(names), matched, matched, 0], [1, 1, len(true), len(given), 0]


def _matches(given: Sequence[str], true: Sequence[str]) -> int:
    """How many given phrases are true ones, the most alike first, each used once."""
    alike = [
        (fuzz.ratio(sounds(g), sounds(t)), i, j)
        for i, g in enumerate(given)
        for j, t in enumerate(true)
    ]
    used: set[tuple[str, int]] = set()
    matched = 0
    for score, i, j in sorted(alike, key=lambda item: -item[0]):
        if (
            score >= SUPPORT
            and used.isdisjoint({("given", i), ("true", j)})
            and agree(given[i], true[j])
        ):
            used |= {("given", i), ("true", j)}
            matched += 1
    return matched


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
