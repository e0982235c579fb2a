import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.clean import clean
from ampere.text.normalize import normalize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这个洗发水", "这个洗发水"),  # short transcripts are cleaned like any other
        ("  a \t b  ", "a b"),
        ("一\x00二\x1b[31m三\u200b四\ufeff", "一二[31m三四"),
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
        "0元00块000",
        "从S码到XXXL码",
        "AAA电池",
        "CCC认证",
        "最大有xxxl码",
        "最大X X X L码",
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
    assert set(once) <= set(normalize(text)) | {" "}
    assert not any(ord(character) < 32 and character != "\n" for character in once)


def test_clean_is_fast_on_long_texts() -> None:
    loop = "这款面霜真的特别好用大家快来看看" * 6000
    start = time.process_time()
    assert clean(loop) == "这款面霜真的特别好用大家快来看看"
    random = Random(0)
    words = "".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(70_000))
    assert clean(words) == words
    phrases = ["".join(random.sample(words, 40)) for _ in range(200)]
    apart = "".join(random.choice(phrases) for _ in range(2000))  # phrases recur, nothing loops
    assert len(clean(apart)) > 70_000
    assert time.process_time() - start < 20  # seconds; with backtracking it would take hours


SENTENCE = "这款云岚薄荷控油洗发水真的特别好用洗完头皮清爽一整天都不油家人们一定要试试看不会后悔"
OTHER = "还有这款松石竹炭牙刷刷毛特别细"


@pytest.mark.parametrize(
    "unit",
    [
        SENTENCE,
        SENTENCE + "，",
        SENTENCE + "\n",
        SENTENCE + OTHER + SENTENCE[:20] + "。",  # its beginning occurs twice within it
        "".join(chr(0x4E00 + i * 13 % 9973) for i in range(3000)),
        "this shampoo with mint really keeps your scalp fresh all day long, trust me ",
    ],
)
@pytest.mark.parametrize("copies", [3, 4, 50])
def test_loop_of_any_length_counts_once(unit: str, copies: int) -> None:
    once = unit.strip("，\n ")
    assert clean(unit * copies).strip("，") == once
    # In the midst of a text, without its last separator, and cut within a copy.
    around = clean(f"大家好。{unit * copies}{OTHER}")
    assert around.count(unit[:25]) == once.count(unit[:25])
    assert around.startswith("大家好。") and around.endswith(OTHER)
    assert clean((unit * copies).strip("，\n ")) == once
    assert clean(unit * copies + unit[:22]).strip("，") == once


def test_passage_said_twice_is_no_loop() -> None:
    assert clean(SENTENCE * 2) == SENTENCE * 2
    apart = f"{SENTENCE}{OTHER}{SENTENCE}价格也不贵{SENTENCE}"
    assert clean(apart) == apart
