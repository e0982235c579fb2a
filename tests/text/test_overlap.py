"""What two overlapping pieces both say is there once, and nothing else is lost."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampere.text import overlap
from ampere.text.overlap import MAX_CUT, TOKEN, merge_texts

SENTENCE = ["the", "kettle", "boils", "two", "liters", "of", "water", "in", "three", "minutes"]
CHINESE = "这款绿茶产自杭州今天买一送一大家快来抢购"


def test_examples() -> None:
    assert doctest.testmod(overlap).failed == 0


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ("It fits a small room.", "A small room, and it is", "It fits a small room, and it is"),
        ("It fits a SMALL", "small room", "It fits a SMALL room"),
        ("it doesn't slip", "doesn’t slip on ice", "it doesn't slip on ice"),
        ("两升水。", "升水，三分钟烧开。", "两升水，三分钟烧开。"),
        ("全新的ｉＰｈｏｎｅ", "iPhone 手机壳", "全新的ｉＰｈｏｎｅ 手机壳"),
        ("これは新しい", "新しい電話です", "これは新しい電話です"),
        ("이 신발은 가볍고", "가볍고 방수가 됩니다", "이 신발은 가볍고 방수가 됩니다"),
        ("hello", "hello", "hello"),
        ("It is new.", "is new", "It is new."),
        # Cut in two at the end of the first, at the beginning of the second, and at both.
        ("it has a washable cov", "a washable cover", "it has a washable cover"),
        ("it has a washable cover", "Ash bell a washable cover too", "it has a washable cover too"),
        ("这款绿茶产自杭舟", "子产自杭州的", "这款绿茶产自杭州的"),
        ("it has a washable cover", "a washable", "it has a washable cover"),
        # A single shared word is no reason to drop others.
        ("it is in the kitchen", "the price is low", "it is in the kitchen the price is low"),
        ("buy it", "it is new", "buy it is new"),
        ("买它买它", "买它买它今天", "买它买它今天"),
        ("一二三", "四五六", "一二三四五六"),
        ("一二三。", "四五六", "一二三。四五六"),
        ("新しい", "カメラ", "新しいカメラ"),
        ("手机", "case", "手机 case"),
        ("手机。", "case", "手机。case"),
        ("one two", "three", "one two three"),
        ("가방", "신발", "가방 신발"),
        ("", "one", "one"),
        ("one", "", "one"),
        ("", "", ""),
        (" one ", " two ", "one two"),
        ("...", "!", "... !"),
    ],
)
def test_merged_by_hand(first: str, second: str, merged: str) -> None:
    assert merge_texts(first, second) == merged


def test_shared_text_from_far_before_the_end_is_kept() -> None:
    """A phrase that comes again much later in the speech is not the overlap."""
    first = "a small room " + " ".join(str(i) for i in range(10))
    assert merge_texts(first, "a small room") == f"{first} a small room"


@given(st.integers(1, len(SENTENCE)), st.integers(1, len(SENTENCE)))
def test_cut_sentence_is_whole_again(end: int, shared: int) -> None:
    start = max(0, end - shared)
    first, second = " ".join(SENTENCE[:end]), " ".join(SENTENCE[start:])
    assert merge_texts(first, second) == " ".join(SENTENCE)
    first, second = CHINESE[:end], CHINESE[start:]
    assert merge_texts(first, second) == CHINESE


TEXTS = st.text("ab 茶好。,", max_size=30)


@given(TEXTS, TEXTS)
def test_nothing_is_lost_but_what_is_shared(first: str, second: str) -> None:
    merged = TOKEN.findall(merge_texts(first, second))
    one, two = TOKEN.findall(first), TOKEN.findall(second)
    assert len(merged) >= max(len(one), len(two)) - 2 * MAX_CUT
    if not set(one) & set(two):
        assert merged == one + two
