import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypinyin import lazy_pinyin

from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import CHATTER, FILLERS, OPENERS, chat, homophones, recognize, say
from ampere.text.characters import common_characters

PRODUCT, OTHER = demo_products(random.Random(0), 2)
CLEAN = {"homophone": 0.0, "stutter": 0.0, "filler": 0.0, "comma": 0.0}
seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(seeds, st.integers(1, 30))
def test_sales_talk_states_name_and_every_feature(seed: int, lines: int) -> None:
    said = say(PRODUCT, random.Random(seed), lines=lines)
    assert sum(PRODUCT.name in line for line in said) == (3 if lines > 10 else 2)
    for feature in PRODUCT.features:
        assert any(feature in line for line in said)
    assert sum(line in OPENERS for line in said) == (2 if lines > 10 else 1)
    assert said[0] in OPENERS
    assert any(line in CHATTER for line in said)


@settings(deadline=None)
@given(seeds)
def test_talk_has_about_the_requested_lines(seed: int) -> None:
    assert 16 <= len(say(PRODUCT, random.Random(seed), lines=16)) <= 19


@settings(deadline=None)
@given(seeds)
def test_other_product_is_mentioned_once(seed: int) -> None:
    said = say(PRODUCT, random.Random(seed), lines=8, other=OTHER)
    assert sum(OTHER.name in line for line in said) == 1


@settings(deadline=None)
@given(seeds)
def test_chat_names_no_product(seed: int) -> None:
    said = chat(random.Random(seed), lines=6)
    assert len(said) == 7
    assert said[0] in OPENERS and set(said[1:]) <= set(CHATTER)


def test_recognition_without_errors_joins_the_lines() -> None:
    assert recognize(["今天", "天气", "好"], random.Random(0), **CLEAN) == "今天天气好"
    assert recognize(["今天", "好"], random.Random(0), **CLEAN | {"comma": 1.0}) == "今天，好"
    assert recognize([], random.Random(0)) == ""


@settings(deadline=None)
@given(seeds)
def test_homophones_preserve_sound_and_length(seed: int) -> None:
    line = "这款薄荷洗发水真的绝了ABC"
    heard = recognize([line], random.Random(seed), **CLEAN | {"homophone": 1.0})
    assert len(heard) == len(line)
    assert heard[-3:] == "ABC"  # no other character sounds like them
    for said, written in zip(line[:-3], heard, strict=False):
        assert written in homophones().get(said, "") or said == written
    assert heard != line


def test_homophones_sound_alike_by_hand() -> None:
    table = homophones()
    assert "在" in table["再"] and "再" in table["在"]
    assert "他" in table["她"]
    assert "再" not in table["再"]
    assert set(table) <= set(common_characters())
    some = random.Random(0).sample(sorted(table), 50)
    for character in some:
        assert {lazy_pinyin(other)[0] for other in table[character]} <= {lazy_pinyin(character)[0]}


@settings(deadline=None)
@given(seeds)
def test_stutter_repeats_a_piece_in_place(seed: int) -> None:
    line = "一二三四五六七"
    heard = recognize([line], random.Random(seed), **CLEAN | {"stutter": 1.0})
    pieces = {
        line[:i] + line[i:j] + line[i:] for i in range(len(line)) for j in range(i + 1, i + 5)
    }
    assert heard in pieces


@settings(deadline=None)
@given(seeds)
def test_filler_is_at_the_start_of_a_line(seed: int) -> None:
    heard = recognize(["好"], random.Random(seed), **CLEAN | {"filler": 1.0})
    assert heard.endswith("好") and heard.removesuffix("好") in FILLERS


@pytest.mark.parametrize("seed", [0, 1])
def test_transcript_depends_on_the_seed_only(seed: int) -> None:
    def transcript(s: int) -> str:
        rng = random.Random(s)
        return recognize(say(PRODUCT, rng, lines=16, other=OTHER), rng)

    assert transcript(seed) == transcript(seed)
    assert transcript(seed) != transcript(seed + 1)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_error_rate_is_about_the_stated_one(seed: int) -> None:
    lines = ["家人们晚上好啊欢迎来到直播间"] * 200
    heard = recognize(lines, random.Random(seed), **CLEAN | {"homophone": 0.1})
    changed = sum(a != b for a, b in zip("".join(lines), heard, strict=True)) / len(heard)
    assert 0.06 < changed < 0.13
