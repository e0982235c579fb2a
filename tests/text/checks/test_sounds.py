import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.checks.sounds import agree, sounds, speech


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("500ml", "五百ml"),
        ("一板十支", "一板是支"),  # misheard
        ("三十克", "三石克"),  # the rest of the number counts as one
        ("五百毫升", "五摆毫升"),
        ("不可机洗", "布可机洗"),
        ("无添加", "不添加"),
        ("非常柔软", "很柔软"),
        ("不锈钢刀头", "不锈钢刀"),
        ("软毛", "硬毛"),  # neither has a number or a negation
        ("", ""),
    ],
)
def test_phrases_that_agree(one: str, other: str) -> None:
    assert agree(one, other) and agree(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("500ml", "300ml"),
        ("三百毫升", "五百毫升"),
        ("十支", "二十支"),
        ("四十支", "十四支"),
        ("三石克", "三百克"),
        ("3层", "3.5层"),
        ("软毛牙刷", "软毛牙刷2支"),
        ("可机洗", "不可机洗"),
        ("不锈钢刀头防水", "不锈钢刀头不防水"),
        ("美白牙齿", "没美白牙齿不"),
    ],
)
def test_phrases_that_do_not_agree(one: str, other: str) -> None:
    assert not agree(one, other) and not agree(other, one)


def test_number_sounds_the_same_in_every_spelling() -> None:
    assert sounds("SPF 50+，两千克") == sounds("spf五十2000克")


def test_number_across_a_cut_keeps_its_extent() -> None:
    heard = speech("有二十支")
    assert heard.cut(2, 4).numbers == ((-1, 1),)
    assert heard.cut(1, 4).numbers == ((0, 2),) and heard.cut(-3, 1).numbers == ()


@settings(deadline=None)
@given(st.text(max_size=80))
def test_one_sound_per_character_and_text_agrees_with_itself(text: str) -> None:
    spoken = speech(text)
    assert len(spoken.pinyin) == len(spoken.sounds)
    assert all(0 <= start < end <= len(spoken.pinyin) for start, end in spoken.numbers)
    assert all(spoken.pinyin[place] in ("bu", "mei", "wu", "fei") for place in spoken.negations)
    assert agree(text, text)
