"""Checks of a summary against its transcript, without a model: what may be invented, and what is only sales talk.

Speech recognisers write homophones, and a good summary mends them; so support is looked for by sound (pinyin without
tones), and roughly, since speech stutters.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from pypinyin import lazy_pinyin
from rapidfuzz import fuzz

# Share of a phrase's sounds that must stand together in the transcript, in percent; docs/results.md has the trade-off.
SUPPORT = 75.0
NUMBER = r"[0-9零一二两三四五六七八九十百千万点.]+"
NO_CHINESE = r"$|[^\u4e00-\u9fff]"
PRICE = re.compile(
    rf"{NUMBER}\s*(块(?=钱|{NUMBER}|{NO_CHINESE})|元|毛钱|rmb|usd|yuan|dollars?)"  # 块 also counts pieces
    rf"|打\s*{NUMBER}\s*折|{NUMBER}\s*折(?=起|优惠|{NO_CHINESE})"  # 折 also counts folds, as of an umbrella
    rf"|[¥$￥€]\s*{NUMBER}|原价|到手价|半价",
    re.IGNORECASE,
)
LONGEST_CACHED = 64  # characters; phrases come again, transcripts hardly
SALES_TALK = re.compile(
    "家人们|宝宝们|姐妹们|老铁|关注|点赞|福袋|福利|直播间|链接|下单|拍下|秒杀|抢购|包邮|运费险|优惠|赠品|买一送|限时|库存"
    "|快递|发货|free shipping|link below|subscribe|discount|limited time|add to cart",
    re.IGNORECASE,
)


class Flag(StrEnum):
    """What a check found wrong with a phrase."""

    UNSUPPORTED = "unsupported"  # nothing in the transcript sounds like it
    PRICE = "price"
    SALES_TALK = "sales talk"


def audit(transcript: str, product_name: str, product_features: Sequence[str]) -> list[str]:
    """Flags of a summary, each as "flag: phrase", in the order of the phrases; empty if nothing was found.

    >>> audit("这款猕猴桃特别田，只要九块九", "猕猴桃", ["特别甜", "不打农药", "只要九块九"])
    ['unsupported: 不打农药', 'price: 只要九块九']
    """
    heard = sounds(transcript)
    flags = []
    for phrase in filter(None, (product_name, *product_features)):
        if support(phrase, heard) < SUPPORT:
            flags.append(f"{Flag.UNSUPPORTED}: {phrase}")
        if PRICE.search(phrase):
            flags.append(f"{Flag.PRICE}: {phrase}")
        if SALES_TALK.search(phrase):
            flags.append(f"{Flag.SALES_TALK}: {phrase}")
    return flags


def support(phrase: str, heard: tuple[str, ...]) -> float:
    """How well a phrase is matched by the most similar stretch of the transcript's sounds, in percent."""
    wanted = sounds(phrase)
    if len(wanted) > len(heard):  # or a transcript of one word would support every phrase that holds it
        return fuzz.ratio(wanted, heard)
    return fuzz.partial_ratio(wanted, heard) if heard else 0.0


def sounds(text: str) -> tuple[str, ...]:
    """A sound for each character, so that homophones are equal; punctuation and spaces have none.

    Sounds that speakers and recognisers mix up (zh and z, ng and n at the end) count as one.
    """
    return _cached_sounds(text) if len(text) <= LONGEST_CACHED else _sounds(text)


def _sounds(text: str) -> tuple[str, ...]:
    letters = [c.lower() for c in text if c.isalnum()]
    return tuple(_plain(sound) for sound in lazy_pinyin(letters))


_cached_sounds = lru_cache(maxsize=1024)(_sounds)


def _plain(sound: str) -> str:
    return re.sub(r"^([zcs])h", r"\1", re.sub(r"ng$", "n", sound))
