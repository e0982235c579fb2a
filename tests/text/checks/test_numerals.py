import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampere.text.checks.numerals import MAX_DIGITS, numbers, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", ["五百"]),
        ("五百", ["五百"]),
        ("５００", ["五百"]),
        ("1,200克", ["一千二百"]),
        ("一千二", ["一千二百"]),
        ("三百五", ["三百五十"]),
        ("一千零五", ["一千零五"]),
        ("两万五", ["二万五千"]),
        ("3万", ["三万"]),
        ("1.5万", ["一万五千"]),
        ("一点五万", ["一万五千"]),
        ("三零四点五万", ["三百零四万五千"]),
        ("0.5亿", ["五千万"]),
        ("1.23456万", ["一万二千三百四十五点六"]),
        ("一亿零五万", ["一亿零五万"]),
        ("二零二四年", ["二千零二十四"]),
        ("304", ["三百零四"]),
        ("007", ["零零七"]),
        ("1.5", ["一点五"]),
        ("两点五", ["二点五"]),
        ("三百三百毫升", ["三百", "三百"]),  # a stutter
        ("二二十四", ["二", "二十四"]),
        ("发一一板", ["一", "一"]),
        ("一米一五两个人", ["一", "一", "五", "二"]),
        ("三点五十", ["三", "五十"]),
        ("百搭，百分之百，千万别", []),  # units in words
        ("", []),
    ],
)
def test_numbers_by_hand(text: str, expected: list[str]) -> None:
    assert [spoken for _, _, spoken in numbers(text)] == expected


def test_positions_refer_to_the_text() -> None:
    text = "净含量500克，十支"
    assert [text[start:end] for start, end, _ in numbers(text)] == ["500", "十"]


def test_long_code_is_read_digit_by_digit() -> None:
    assert [spoken for *_, spoken in numbers("1" * 5000)] == ["一" * 5000]


@given(st.integers(0, 10**MAX_DIGITS - 1))
def test_every_spelling_of_a_number_is_read_the_same(number: int) -> None:
    for text in (str(number), f"{number:,}", read(number)):
        assert [spoken for _, _, spoken in numbers(text)] == [read(number)]


@given(st.text(st.sampled_from("零〇一二两九十百千万亿点.,0159x")))
def test_matches_of_any_text_do_not_overlap(text: str) -> None:
    ends = [0]
    for start, end, spoken in numbers(text):
        assert ends[-1] <= start < end and spoken
        ends.append(end)
