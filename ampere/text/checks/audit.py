"""Checks of a summary against its transcript, without a model: what may be invented, and what is only sales talk.

Speech recognisers write homophones, and a good summary mends them; so support is looked for by sound (pinyin without
tones), and roughly, since speech stutters.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from rapidfuzz import fuzz

from ampere.text.checks.sounds import Speech, keeps, negates_more, speech

# Share of a phrase's sounds that must stand together in the transcript, in percent; docs/results.md has the trade-off.
SUPPORT = 75.0
# Between "not" and what it denies: 不是真皮, 没有添加蔗糖, 不需要打孔.
AUXILIARIES = frozenset("是会能用要需有含加任何再")
LOOKS = 32  # at stretches of a transcript that sound like a phrase
NUMBER = r"[0-9零一二两三四五六七八九十百千万点.]+"
NO_CHINESE = r"$|[^\u4e00-\u9fff]"
PRICE = re.compile(
    # 块 also counts pieces; 三元 is a dairy, and what it makes stands after it.
    rf"{NUMBER}\s*(块(?=钱|{NUMBER}|{NO_CHINESE})|元(?![气素件旦宵酸牛奶鲜乳纯])|毛钱|rmb|usd|yuan|dollars?)"
    rf"|打\s*{NUMBER}\s*折|{NUMBER}\s*折(?=起|优惠|{NO_CHINESE})"  # 折 also counts folds, as of an umbrella
    rf"|[¥$￥€]\s*{NUMBER}|原价|到手价|半价",
    re.IGNORECASE,
)
SALES_TALK = re.compile(
    "家人们|宝宝们|姐妹们|老铁|关注|点赞|福袋|福利|直播间|链接|下单|拍下|秒杀|抢购|包邮|运费险|优惠|赠品|买一送|限时|库存"
    "|快递|发货|free shipping|link below|subscribe|discount|limited time|add to cart",
    re.IGNORECASE,
)


class Flag(StrEnum):
    """What a check found wrong with a phrase."""

    UNSUPPORTED = "unsupported"  # nothing in the transcript sounds like it, or it has another number or the opposite
    PRICE = "price"
    SALES_TALK = "sales talk"


def audit(transcript: str, product_name: str, product_features: Sequence[str]) -> list[str]:
    """Flags of a summary, each as "flag: phrase", in the order of the phrases; empty if nothing was found.

    >>> audit("这款猕猴桃特别田，只要九块九", "猕猴桃", ["特别甜", "不打农药", "只要九块九"])
    ['unsupported: 不打农药', 'price: 只要九块九']
    """
    heard = speech(transcript)
    flags = []
    for phrase in filter(None, (product_name, *product_features)):
        if not supported(phrase, heard):
            flags.append(f"{Flag.UNSUPPORTED}: {phrase}")
        if PRICE.search(phrase):
            flags.append(f"{Flag.PRICE}: {phrase}")
        if SALES_TALK.search(phrase):
            flags.append(f"{Flag.SALES_TALK}: {phrase}")
    return flags


def supported(phrase: str, heard: Speech) -> bool:
    """Whether a stretch of the transcript sounds like the phrase, has its numbers and means no opposite of it."""
    wanted = speech(phrase)
    windows = [(0, len(heard.sounds))]
    for _ in range(LOOKS):
        if not windows:
            return False
        low, high = windows.pop()
        if support(wanted.sounds, heard.sounds[low:high]) < SUPPORT:
            continue
        place = fuzz.partial_ratio_alignment(wanted.sounds, heard.sounds[low:high])
        if place is None:  # a phrase of marks alone has no sounds
            return True
        start, end = low + place.dest_start, low + place.dest_end
        # As many sounds may differ, or be left out of the stretch: so far beside it a number or a "not" may stand.
        slack = len(wanted.sounds) // 4 + max(0, len(wanted.sounds) - (end - start))
        before = start - 1
        while before > 0 and heard.letters[before] in AUXILIARIES:
            before -= 1
        if keeps(wanted, heard.cut(start - slack, end + slack)) and not negates_more(
            heard.cut(before, end), wanted
        ):
            return True
        windows += [
            (end, high),
            (low, start),
        ]  # others' twenty pieces may be spoken of before one's own ten
    return False


def support(wanted: tuple[str, ...], heard: tuple[str, ...]) -> float:
    """How well the sounds of a phrase are matched by the most similar stretch of the transcript's, in percent."""
    if len(wanted) > len(
        heard
    ):  # or a transcript of one word would support every phrase that holds it
        return fuzz.ratio(wanted, heard)
    return fuzz.partial_ratio(wanted, heard) if heard else 0.0
