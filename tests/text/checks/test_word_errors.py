import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampere.text.checks import word_errors
from ampere.text.checks.word_errors import Reference, TranscriptScores, score_transcripts, tokens


def score(*pairs: tuple[str | None, str]) -> TranscriptScores:
    return score_transcripts([(heard, Reference(text=said)) for heard, said in pairs])["all"]


def edits(scores: TranscriptScores) -> tuple[int, int, int, int]:
    return scores.tokens, scores.substituted, scores.deleted, scores.inserted


def test_examples() -> None:
    assert doctest.testmod(word_errors).failed == 0


def test_words_by_hand() -> None:
    # 10 words: "liters" is heard as "leaders", "of" is not heard, "the" is not said.
    said = "The kettle boils two liters of water in three minutes."
    heard = "the kettle boils two leaders water in the three minutes"
    scores = score((heard, said))
    assert edits(scores) == (10, 1, 1, 1)
    assert scores.error_rate.value == 3 / 10


def test_characters_by_hand() -> None:
    # 9 characters: 州 is heard as 舟, 清 is not heard, 啊 is not said.
    scores = score(("产自杭舟，味道香甜啊", "产自杭州味道清香甜"))
    assert edits(scores) == (9, 1, 1, 1)
    assert scores.error_rate.value == 3 / 9


def test_rates_are_sums_over_clips_in_all_and_by_language() -> None:
    scores = score_transcripts(
        [
            ("one two", Reference(text="one two", language="en")),  # 0 of 2
            ("one", Reference(text="one two three four", language="en-US")),  # 3 of 4
            ("一二三四", Reference(text="一二四", language="zh")),  # 1 of 3
        ]
    )
    assert list(scores) == ["all", "en", "zh"]
    rates = {name: score.error_rate.value for name, score in scores.items()}
    assert rates == {"all": 4 / 9, "en": 3 / 6, "zh": 1 / 3}
    assert [score.clips for score in scores.values()] == [3, 2, 1]
    low, high = scores["en"].error_rate.low, scores["en"].error_rate.high
    assert (low, high) == (0, 3 / 4)  # draws of one clip twice
    assert str(scores["zh"].error_rate) == "33.3 % (33.3 to 33.3)"


def test_clip_without_a_transcript_is_deleted_and_counted() -> None:
    scores = score((None, "one two"), ("", "three"), ("four", "four"))
    assert (scores.without_transcript, scores.clips) == (1, 3)
    assert edits(scores) == (4, 0, 3, 0)


def test_clip_without_speech_counts_what_was_made_up() -> None:
    scores = score(("thank you for watching", ""), ("one", "one"))
    assert edits(scores) == (1, 0, 0, 4)
    assert scores.error_rate.value == 4
    assert math.isnan(score(("thanks", "")).error_rate.value)


def test_interval_without_errors_is_not_empty() -> None:
    rate = score(("one two three", "one two three")).error_rate
    # Wilson's upper bound for 0 of 3: z^2 / (n + z^2), z = 1.96.
    assert (rate.value, rate.low) == (0, 0)
    assert rate.high == pytest.approx(3.8415 / 6.8415, abs=1e-4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It's new", "its NEW."),
        ("It’s new", "It's new"),
        ("1,000 shoes", "1000 shoes"),
        ("well-known", "well known"),
        ("ＯＫ　好", "ok好"),
        ("买一，送一！", "买 一 送 一"),
        ("cafe\u0301", "café"),
        ("ｶﾀｶﾅ", "カタカナ"),
    ],
)
def test_spelling_that_does_not_count(one: str, other: str) -> None:
    by_character = Reference(text=one).language_code != "other"
    assert tokens(one, by_character) == tokens(other, by_character) != []


@pytest.mark.parametrize(
    ("one", "other"), [("two", "2"), ("1.5", "15"), ("1,5", "15"), ("头发", "頭髮"), ("are", "ate")]
)
def test_spelling_that_counts(one: str, other: str) -> None:
    assert tokens(one, by_character=False) != tokens(other, by_character=False)


@pytest.mark.parametrize(
    ("text", "label", "code"),
    [
        ("这款手机", "", "zh"),
        ("OK，买它", "", "zh"),
        ("新しい電話", "", "ja"),
        ("새 휴대폰", "", "ko"),
        ("a new phone", "", "other"),
        ("", "", "other"),
        ("a new phone", "en", "en"),
        ("手机", "zh-CN", "zh"),
        ("手機", "ZH_tw", "zh"),
    ],
)
def test_language(text: str, label: str, code: str) -> None:
    assert Reference(text=text, language=label).language_code == code


def test_marks_stay_in_their_word() -> None:
    assert tokens("हिन्दी में", by_character=False) == ["हिन्दी", "में"]


TEXTS = st.text("ab 茶好,'1", max_size=12)


@given(TEXTS, TEXTS)
def test_counts_of_edits_agree_with_the_lengths(heard: str, said: str) -> None:
    by_character = Reference(text=said).language_code == "zh"
    scores = score((heard, said))
    count, substituted, deleted, inserted = edits(scores)
    assert count == len(tokens(said, by_character))
    assert count - deleted + inserted == len(tokens(heard, by_character))
    assert (substituted + deleted + inserted == 0) == (
        tokens(heard, by_character) == tokens(said, by_character)
    )
