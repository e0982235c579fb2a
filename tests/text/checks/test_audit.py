import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import recognize, say
from ampere.text.checks import sounds as sounds_module
from ampere.text.checks.audit import audit
from ampere.text.checks.numerals import DIGITS, UNITS, spell_out
from ampere.text.checks.sounds import MAX_CACHED, sounds
from ampere.text.language import Language
from ampere.text.prompts import EXAMPLE
from ampere.text.summary import parse_summary

# Without numbers and negations: a part of a number, or of what is negated, has another meaning.
PLAIN = st.text(
    st.characters(
        exclude_categories=["Nd"], exclude_characters=f"〇两不没无非%％{DIGITS}{''.join(UNITS)}"
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    ("transcript", "phrase"),
    [
        ("我们家的猕猴桃特别甜", "特别甜"),
        ("我们家的猕猴桃特别田", "特别甜"),  # a homophone
        ("刷毛特别细不伤牙银", "不伤牙龈"),
        ("这个是三百好升的", "三百毫升"),
        ("申层清洁头痞", "深层清洁头皮"),  # shen and sen count as one sound
        ("特别，甜", "特别甜"),
        ("The SPF 50 sunscreen", "spf50"),
        ("洗发水留留香持久", "留香持久"),  # a stutter
        ("一共三百三百毫升", "300毫升"),
        ("规格是散百毫升的", "三百毫升"),  # a number misheard
        ("一袋是晾百克", "两百克"),
        ("净含量是五百", "净含量五百"),  # the best match ends within the number
        ("拍一发一一板是支", "一板十支"),
        ("三零四不锈钢的", "304不锈钢"),
        ("这个布可机洗的", "不可机洗"),
        ("也不不伤牙龈", "不伤牙龈"),
        ("非常柔软舒适", "柔软舒适"),
        ("粘不粘锅你看不粘锅", "不粘锅"),
        ("不会油腻好吸收", "不油腻好吸收"),
        ("不锈钢刀头防水", "不锈钢刀头防水"),
        ("二十支的卖完了，今天发十支", "十支"),  # the second of two matches
        ("不可机洗的别买，我们这个可机洗", "可机洗"),
        ("一点五万转的马达", "1.5万转"),
        ("这件是百分之百纯棉的", "100%纯棉"),
        ("这个是含量50%羊毛的衣服很暖和", "百分之五十羊毛"),
        ("it is eighteen inches long, okay", "18 inches"),
        ("不仅是真皮的还很软", "真皮"),
        ("是不是真皮，是真皮的", "真皮"),
    ],
)
def test_supported_phrases(transcript: str, phrase: str) -> None:
    assert audit(transcript, "", [phrase]) == []


@pytest.mark.parametrize(
    ("transcript", "phrase"),
    [
        ("我们家的猕猴桃特别甜", "不打农药"),
        ("", "特别甜"),
        ("，。！", "特别甜"),
        ("甜", "清凉薄荷"),
        ("hello", "sunscreen"),
        ("牙刷", "松石竹炭牙刷"),  # the transcript has a part of the name only
        ("今天给的是三百毫升的", "五百毫升"),
        ("两千五百毫升大容量", "五百毫升大容量"),  # the phrase has a part of the number only
        ("一板二十支", "一板十支"),
        ("五百克一袋，规格是三百毫升", "五百毫升"),  # the number belongs to something else
        ("这件衣服不可机洗", "可机洗"),
        ("这件衣服可机洗", "不可机洗"),
        ("不锈钢刀头不防水", "不锈钢刀头防水"),
        ("二十支的卖完了，今天发三十支", "十支"),
        ("这个保质期3天", "保质期7天"),  # 期 sounds like 七, and both have it
        ("大家看容量5升", "容量2升"),
        ("可以使用5年的", "使用10年"),
        ("净含量5克", "净含量2克"),
        ("这衣服重三斤", "衣服重1斤"),
        ("这个包不是真皮的是pu皮", "真皮"),
        ("这个没有添加蔗糖", "添加蔗糖"),
        ("这个不会掉色", "掉色"),
        ("不需要打孔就能装", "打孔"),
        ("这个锅不是不锈钢的", "不锈钢"),
        ("it is eighteen inches long, okay", "24 inches"),
    ],
)
def test_unsupported_phrases(transcript: str, phrase: str) -> None:
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
def test_prices_and_sales_talk_are_flagged(phrase: str, flag: str) -> None:
    assert f"{flag}: {phrase}" in audit(phrase, "", [phrase])


@pytest.mark.parametrize(
    "phrase",
    [
        "三百毫升",
        "一板十支",
        "500克",
        "百分之百纯棉",
        "六块装的",
        "持妆二十四小时",
        "三折伞",
        "两折钱包",
        "四折叠",
        "三元纯牛奶",
        "一点元气",
    ],
)
def test_sizes_are_not_flagged_as_prices(phrase: str) -> None:
    assert audit(phrase, "", [phrase]) == []


@pytest.mark.parametrize("language", Language)
def test_examples_of_the_prompts_have_no_flags(language: Language) -> None:
    for transcript, answer in EXAMPLE.wordings[language].examples:
        summary = parse_summary(answer)
        assert audit(transcript, summary.product_name, summary.product_features) == []


def test_name_is_audited_unless_empty() -> None:
    assert audit("大家好", "云岚洗发水", []) == ["unsupported: 云岚洗发水"]
    assert audit("大家好", "", []) == []


def test_long_texts_are_not_cached() -> None:
    size = sounds_module._cached_speech.cache_info().currsize
    assert len(sounds("甜" * (MAX_CACHED + 1))) == MAX_CACHED + 1
    assert sounds_module._cached_speech.cache_info().currsize == size


def test_generated_transcript_supports_its_own_product_only() -> None:
    rng = random.Random(7)
    products = list(demo_products(rng, 120))
    own = foreign = facts = foreign_facts = 0
    for product in products:
        other = next(
            p for p in rng.sample(products, len(products)) if p.category != product.category
        )
        transcript = recognize(say(product, rng, lines=12), rng)
        facts += 1 + len(product.features)
        foreign_facts += 1 + len(other.features)
        own += sum(
            "unsupported" in flag for flag in audit(transcript, product.name, product.features)
        )
        foreign += sum(
            "unsupported" in flag for flag in audit(transcript, other.name, other.features)
        )
    assert own / facts < 0.02
    assert foreign / foreign_facts > 0.9


@settings(deadline=None)
@given(PLAIN, st.integers(0, 50), st.integers(1, 10))
def test_any_part_of_a_transcript_is_supported(text: str, start: int, length: int) -> None:
    piece = text[start : start + length]
    # Without English numbers, such as twenty, or the ten that is cut out of a tent.
    assume(spell_out(text) == text and spell_out(piece) == piece)
    if sounds(piece):
        assert not any("unsupported" in flag for flag in audit(text, "", [piece]))
