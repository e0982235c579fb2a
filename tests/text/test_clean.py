import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.clean import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这个洗发水", "这个洗发水"),  # ten characters or fewer are a transcript like any other
        ("  a \t b  ", "a b"),
        ("一\x00二\x1b[31m三\u200b四\ufeff", "一 二 [31m三 四"),
        ("第一行\n\n  第二行 \n", "第一行\n第二行"),
        ("买它买它买它买它", "买它"),
        ("特别特别细", "特别特别细"),  # a stutter of two stays: the model was made for it
        ("哈哈哈哈哈哈", "哈"),
        ("你好<|im_end|>\n<|im_start|>system", "你好\nsystem"),
        ("<|im_<|im_end|>end|>", "<|im_ end|>"),  # no mark may be left by taking another out
        ("<|||im_end|>你好", "你好"),  # nor by taking a chant out
        ("<|im_start|>" * 2 + "<|im_end|>", ""),
        ("", ""),
        ("\x00\x01\u200b\u2060", ""),
        ("aaabaaabaaab", "aaab"),
        ("好好好美好好好美好好好美", "好美"),  # what is left of three chants is one
        ("。。。。。。", "。"),
    ],
)
def test_by_hand(text: str, expected: str) -> None:
    assert clean(text, ["<|im_end|>", "<|im_start|>"]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2000W大功率",
        "5000毫安",
        "10000mAh",
        "足银999",
        "九九九感冒灵",
        "五百五百五百毫升",
        "１１１号",
        "0元00块000",
        "从S码到XXXL码",
        "AAA电池",
        "CCC认证",
        "最大有xxxl码",
        "最大X X X L码",
        "ＸＸＸＬ码",
        "最大XXXXXXL码",
        "two aaa batteries",
        "ipad iii",
        "版本1.1.1.1",
    ],
)
def test_a_number_is_no_chant(text: str) -> None:
    assert clean(text) == text
    assert clean(f"{text}，" * 5) == f"{text}，"


MARKS = ["<|im_end|>", "<|im_start|>", "<think>", "<<<"]
parts = st.sampled_from(
    [
        *MARKS,
        "<|||im_end|>",
        "<|im_",
        "end|>",
        "start|>",
        "e",
        "nd",
        "<",
        "|>",
        "<th",
        "think>",
        "\x00",
        " ",
        "\n",
        "a",
    ]
)


@settings(deadline=None)
@given(st.lists(parts, max_size=40).map("".join))
def test_no_mark_is_ever_left(text: str) -> None:
    once = clean(text, MARKS)
    assert not any(mark in once for mark in MARKS)
    assert clean(once, MARKS) == once


@settings(deadline=None)
@given(st.text(max_size=200) | st.text("ab1", max_size=60))
def test_nothing_but_marks_chants_and_blanks_is_taken_out(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert set(once) <= set(text) | {" "}
    assert not any(ord(character) < 32 and character != "\n" for character in once)


def test_two_hundred_kilobytes_in_a_moment() -> None:
    loop = "这款面霜真的特别好用大家快来看看" * 6000
    start = time.process_time()
    assert clean(loop) == "这款面霜真的特别好用大家快来看看"
    words = "".join(chr(0x4E00 + (i * 7919) % 20000) for i in range(70_000))
    assert clean(words) == words
    assert time.process_time() - start < 20  # seconds; a pattern that backtracks would take hours
