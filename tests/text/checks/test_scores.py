import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.checks.scores import MEASURES, SummaryScores, score_summaries


def summary(name: str | None, *features: str) -> dict[str, Any]:
    return {"product_name": name, "product_features": list(features)}


def values(scores: SummaryScores) -> list[float]:
    return [getattr(scores, name).value for name in MEASURES]


def test_scores_by_hand() -> None:
    pairs = [
        (
            summary("洗发水", "控油", "500ml"),
            summary("洗发水", "控油", "500ml"),
        ),  # 2 of 2 given, 2 of 2 true
        (
            summary("洗发露", "控油"),
            summary("洗发水", "控油", "去屑"),
        ),  # wrong name, 1 of 1 given, 1 of 2 true
        (summary(""), summary("牙刷", "软毛")),  # no name, 0 of 1 true
        (
            summary("牙刷", "硬毛", "红"),
            summary("牙刷", "软毛"),
        ),  # right name, 0 of 2 given, 0 of 1 true
        (summary(""), summary("")),  # chat, recognized
        (summary("牙膏", "薄荷"), summary("")),  # chat, mistaken for a product
        (summary(""), summary("")),
    ]
    scores = score_summaries(pairs)
    assert (scores.count, scores.chat_count) == (4, 3)
    assert values(scores) == [2 / 4, 1 / 4, 3 / 6, 3 / 5, 2 / 3]
    assert "name right 50.0% of 4" in str(scores) and "66.7% of 3" in str(scores)


def test_name_ignores_case_and_punctuation_but_not_homophones() -> None:
    pairs = [
        (summary("pine ridge　Board"), summary("Pine-Ridge board")),
        (summary("松石牙刷"), summary("松实牙刷")),
    ]
    assert score_summaries(pairs).name_accuracy.value == 1 / 2


def test_feature_is_matched_by_sound_and_once() -> None:
    truth = summary("牙刷", "不伤牙龈", "刷毛特别细")
    scores = score_summaries([(summary("牙刷", "不伤牙银", "不伤牙龈", "毛很细"), truth)])
    # The homophone or the right spelling, not both; the third is too short.
    assert scores.feature_recall.value == 1 / 2
    assert scores.feature_precision.value == 1 / 3


def test_feature_with_another_number_or_negation_is_wrong() -> None:
    truth = summary("锅", "五百毫升", "不可机洗", "不锈钢刀头防水")
    alike = score_summaries([(summary("锅", "500毫升", "布可机洗", "不锈钢刀头防水的"), truth)])
    assert alike.feature_recall.value == 1
    other = score_summaries([(summary("锅", "三百毫升", "可机洗", "不锈钢刀头不防水"), truth)])
    assert other.feature_recall.value == 0


def test_name_may_be_any_phrase_if_method_has_no_names() -> None:
    truth = summary("松石牙刷", "软毛")
    scores = score_summaries([(summary(None, "软毛", "松石牙刷"), truth), (summary(None), truth)])
    assert values(scores)[:2] == [1 / 2, 1 / 2]
    assert score_summaries([(summary("", "软毛", "松石牙刷"), truth)]).no_output.value == 1


def test_intervals_contain_the_share_and_narrow_with_more_transcripts() -> None:
    right, wrong = (summary("a"), summary("a")), (summary("b"), summary("a"))
    few, many = (score_summaries([right, right, right, wrong] * n).name_accuracy for n in (10, 250))
    assert few.value == many.value == 0.75
    # The normal approximation: 1.96 standard errors of a share of 0.75.
    for share, n in ((few, 40), (many, 1000)):
        half = 1.96 * math.sqrt(0.75 * 0.25 / n)
        assert share.low == pytest.approx(0.75 - half, abs=0.3 * half)
        assert share.high == pytest.approx(0.75 + half, abs=0.3 * half)
    assert str(many) == f"75.0 % ({100 * many.low:.1f} to {100 * many.high:.1f})"


def test_shares_of_zero_and_one_have_wilson_intervals() -> None:
    right, chat = (summary("a", "软毛"), summary("a", "软毛")), (summary(""), summary(""))
    scores = score_summaries([right] * 20 + [chat] * 5)
    # Wilson's, at the ends: n / (n + z^2) to 1, and 0 to z^2 / (n + z^2)
    square = 1.96**2
    for share, n in (
        (scores.name_accuracy, 20),
        (scores.feature_recall, 20),
        (scores.chat_recognised, 5),
    ):
        assert (share.value, share.high) == (1, 1) and share.low == pytest.approx(
            n / (n + square), abs=1e-4
        )
    assert scores.no_output.low == 0 and scores.no_output.high == pytest.approx(
        square / (20 + square), abs=1e-4
    )


def test_missing_summary_counts_as_wrong() -> None:
    scores = score_summaries(
        [(None, summary("牙刷", "软毛")), (None, summary("")), (summary(""), summary(""))]
    )
    assert (scores.unanswered, scores.count, scores.chat_count) == (2, 1, 2)
    assert values(scores)[:3] == [0, 1, 0] and scores.chat_recognised.value == 1 / 2


def test_intervals_are_deterministic() -> None:
    one = (summary("a", "软毛"), summary("a", "软毛"))
    pairs = [one, (summary("", "硬毛"), summary("a")), (summary(""), summary(""))] * 20
    assert score_summaries(pairs) == score_summaries(pairs)


def test_shares_of_nothing_are_nan() -> None:
    scores = score_summaries([])
    assert scores.count == scores.chat_count == 0
    assert all(math.isnan(x) for x in values(scores))
    without_features = score_summaries([(summary(""), summary("牙刷", "软毛"))])
    assert without_features.feature_recall.value == 0
    assert math.isnan(without_features.feature_precision.value)


features = st.lists(
    st.sampled_from(["软毛", "控油", "不沾锅", "很便宜", "竹子做的"]), unique=True, max_size=4
)
summaries = st.builds(lambda name, f: summary(name, *f), st.sampled_from(["", "x", "y"]), features)


@settings(deadline=None)
@given(st.lists(st.tuples(summaries, summaries), max_size=8))
def test_perfect_answers_score_one_and_shares_are_in_range(pairs: list[Any]) -> None:
    assert all(math.isnan(share) or 0 <= share <= 1 for share in values(score_summaries(pairs)))
    perfect = score_summaries([(truth, truth) for _, truth in pairs if truth["product_name"]])
    assert all(
        math.isnan(x) or x == 1 for x in (perfect.name_accuracy.value, perfect.feature_recall.value)
    )
    assert math.isnan(perfect.feature_precision.value) or perfect.feature_precision.value == 1
