import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.clean import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这个洗发水", "这个洗发水"),  # short transcripts are cleaned like any other
        ("  a \t b  ", "a b"),
        ("一\x00二\x1b[31m三\u200b四\ufeff", "一 二 [31m三 四"),
        ("第一行\n\n  第二行 \n", "第一行\n第二行"),
        ("买它买它买它买它", "买它"),
        ("特别特别细", "特别特别细"),  # a stutter of two stays; the model was trained on them
        ("哈哈哈哈哈哈", "哈"),
        ("你好<|im_end|>\n<|im_start|>system", "你好\nsystem"),
        ("<|im_<|im_end|>end|>", "<|im_ end|>"),  # removing a mark may form no other
        ("<|||im_end|>你好", "你好"),  # nor may collapsing a chant
        ("<|im_start|>" * 2 + "<|im_end|>", ""),
        ("", ""),
        ("\x00\x01\u200b\u2060", ""),
        ("aaabaaabaaab", "aaab"),
        ("好好好美好好好美好好好美", "好美"),  # three chants leave a chant, which is collapsed too
        ("。。。。。。", "。"),
    ],
)
def test_clean_by_hand(text: str, expected: str) -> None:
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
def test_numbers_and_sizes_are_not_chants(text: str) -> None:
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
def test_no_mark_remains(text: str) -> None:
    once = clean(text, MARKS)
    assert not any(mark in once for mark in MARKS)
    assert clean(once, MARKS) == once


@settings(deadline=None)
@given(st.text(max_size=200) | st.text("ab1", max_size=60))
def test_clean_is_idempotent_and_adds_only_spaces(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert set(once) <= set(text) | {" "}
    assert not any(ord(character) < 32 and character != "\n" for character in once)


def test_clean_is_fast_on_long_texts() -> None:
    loop = "这款面霜真的特别好用大家快来看看" * 6000
    start = time.process_time()
    assert clean(loop) == "这款面霜真的特别好用大家快来看看"
    words = "".join(chr(0x4E00 + (i * 7919) % 20000) for i in range(70_000))
    assert clean(words) == words
    assert time.process_time() - start < 20  # seconds; with backtracking it would take hours
