import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.catalog.goods import demo_products
from ampere.catalog.speech import recognise, say
from ampere.text import audit as audit_module
from ampere.text.audit import LONGEST_CACHED, audit, sounds


@pytest.mark.parametrize(
    ("transcript", "phrase"),
    [
        ("我们家的猕猴桃特别甜", "特别甜"),
        ("我们家的猕猴桃特别田", "特别甜"),  # a homophone
        ("刷毛特别细不伤牙银", "不伤牙龈"),
        ("这个是三百好升的", "三百毫升"),
        ("申层清洁头痞", "深层清洁头皮"),  # shen and sen are one to the check
        ("特别，甜", "特别甜"),
        ("The SPF 50 sunscreen", "spf50"),
        ("洗发水留留香持久", "留香持久"),  # a stutter
    ],
)
def test_what_was_said_is_supported(transcript: str, phrase: str) -> None:
    assert audit(transcript, "", [phrase]) == []


@pytest.mark.parametrize(
    ("transcript", "phrase"),
    [
        ("我们家的猕猴桃特别甜", "不打农药"),
        ("", "特别甜"),
        ("，。！", "特别甜"),
        ("甜", "清凉薄荷"),
        ("hello", "sunscreen"),
        ("牙刷", "松石竹炭牙刷"),  # a part of the name is not the name
    ],
)
def test_what_was_not_said_is_unsupported(transcript: str, phrase: str) -> None:
    assert audit(transcript, "", [phrase]) == [f"unsupported: {phrase}"]


@pytest.mark.parametrize(
    ("phrase", "flag"),
    [
        ("只要二十九块九", "price"),
        ("99元两瓶", "price"),
        ("$9.99", "price"),
        ("打八折", "price"),
        ("全场八点五折", "price"),
        ("8折优惠", "price"),
        ("打 5 折包邮", "price"),
        ("买一送一", "sales talk"),
        ("三二一上链接", "sales talk"),
        ("Free shipping", "sales talk"),
    ],
)
def test_prices_and_sales_talk(phrase: str, flag: str) -> None:
    assert f"{flag}: {phrase}" in audit(phrase, "", [phrase])


@pytest.mark.parametrize(
    "phrase",
    ["三百毫升", "一板十支", "500克", "百分之百纯棉", "六块装的", "持妆二十四小时", "三折伞", "两折钱包", "四折叠"],
)
def test_sizes_are_no_prices(phrase: str) -> None:
    assert audit(phrase, "", [phrase]) == []


def test_the_name_is_checked_too_and_an_empty_one_is_not() -> None:
    assert audit("大家好", "云岚洗发水", []) == ["unsupported: 云岚洗发水"]
    assert audit("大家好", "", []) == []


def test_transcripts_are_not_kept_in_memory() -> None:
    kept = audit_module._cached_sounds.cache_info().currsize
    assert len(sounds("甜" * (LONGEST_CACHED + 1))) == LONGEST_CACHED + 1
    assert audit_module._cached_sounds.cache_info().currsize == kept


def test_generated_speech_supports_its_own_facts_and_not_those_of_others() -> None:
    rng = random.Random(7)
    products = list(demo_products(rng, 120))
    own = foreign = facts = foreign_facts = 0
    for product in products:
        other = next(p for p in rng.sample(products, len(products)) if p.category != product.category)
        transcript = recognise(say(product, rng, lines=12), rng)
        facts += 1 + len(product.features)
        foreign_facts += 1 + len(other.features)
        own += sum("unsupported" in flag for flag in audit(transcript, product.name, product.features))
        foreign += sum("unsupported" in flag for flag in audit(transcript, other.name, other.features))
    assert own / facts < 0.02
    assert foreign / foreign_facts > 0.9


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(0, 50), st.integers(1, 10))
def test_any_piece_of_a_transcript_is_supported(text: str, start: int, length: int) -> None:
    piece = text[start : start + length]
    if sounds(piece):
        assert not any("unsupported" in flag for flag in audit(text, "", [piece]))
