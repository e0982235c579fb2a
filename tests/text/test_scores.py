import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.scores import score_summaries


def summary(name: str, *features: str) -> dict[str, Any]:
    return {"product_name": name, "product_features": list(features)}


def test_scores_by_hand() -> None:
    pairs = [
        (summary("洗发水", "控油", "500ml"), summary("洗发水", "控油", "500ml")),  # 2 of 2 given, 2 of 2 true
        (summary("洗发露", "控油"), summary("洗发水", "控油", "去屑")),  # wrong name, 1 of 1 given, 1 of 2 true
        (summary(""), summary("牙刷", "软毛")),  # no name, 0 of 1 true
        (summary("牙刷", "硬毛", "红"), summary("牙刷", "软毛")),  # right name, 0 of 2 given, 0 of 1 true
        (summary(""), summary("")),  # chat, seen as such
        (summary("牙膏", "薄荷"), summary("")),  # chat, taken for a product
        (summary(""), summary("")),
    ]
    scores = score_summaries(pairs)
    assert scores.count == 4
    assert scores.name_accuracy == 2 / 4
    assert scores.no_output == 1 / 4
    assert scores.feature_recall == 3 / 6
    assert scores.feature_precision == 3 / 5
    assert scores.chat_count == 3
    assert scores.chat_recognised == 2 / 3
    assert "name right 50.0% of 4" in str(scores) and "66.7% of 3" in str(scores)


def test_shares_over_nothing_are_nan() -> None:
    scores = score_summaries([])
    assert scores.count == scores.chat_count == 0
    assert all(math.isnan(x) for x in (scores.name_accuracy, scores.feature_precision, scores.chat_recognised))
    silent = score_summaries([(summary(""), summary("牙刷", "软毛"))])
    assert silent.feature_recall == 0 and math.isnan(silent.feature_precision)


features = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)
some = st.builds(lambda name, f: summary(name, *f), st.sampled_from(["", "x", "y"]), features)


@settings(deadline=None)
@given(st.lists(st.tuples(some, some), max_size=8))
def test_perfect_answers_score_one_and_all_shares_lie_between(pairs: list[Any]) -> None:
    scores = score_summaries(pairs)
    shares = (scores.name_accuracy, scores.no_output, scores.feature_recall, scores.feature_precision)
    assert all(math.isnan(share) or 0 <= share <= 1 for share in shares)
    perfect = score_summaries([(truth, truth) for _, truth in pairs])
    assert perfect.count == scores.count
    for share in (perfect.name_accuracy, perfect.feature_recall, perfect.feature_precision, perfect.chat_recognised):
        assert math.isnan(share) or share == pytest.approx(1)
