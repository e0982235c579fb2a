"""Checks of a summary against its transcript, without a model: invented phrases and sales talk.

Speech recognizers write homophones, which a good summary corrects, and speakers stutter. So a
phrase is matched by sound (pinyin without tones), and approximately.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from rapidfuzz import fuzz

from ampere.text.checks.sounds import Speech, keeps, negates_more, speech

# Percentage of a phrase's sounds that must occur together in the transcript;
# docs/research/results.md has the trade-off.
SUPPORT = 75.0
# Characters between "not" and what it negates: 不是真皮, 没有添加蔗糖, 不需要打孔.
AUXILIARIES = frozenset("是会能用要需有含加任何再")
MAX_LOOKS = 32  # at parts of a transcript that may sound like a phrase
NUMBER = r"[0-9零一二两三四五六七八九十百千万点.]+"
NO_CHINESE = r"$|[^\u4e00-\u9fff]"
PRICE = re.compile(
    # 块 also counts pieces; 三元 is a dairy, if one of its products follows.
    rf"{NUMBER}\s*(块(?=钱|{NUMBER}|{NO_CHINESE})|元(?![气素件旦宵酸牛奶鲜乳纯])"
    r"|毛钱|rmb|usd|yuan|dollars?)"
    # 折 also counts folds, as of an umbrella.
    rf"|打\s*{NUMBER}\s*折|{NUMBER}\s*折(?=起|优惠|{NO_CHINESE})"
    rf"|[¥$￥€]\s*{NUMBER}|原价|到手价|半价",
    re.IGNORECASE,
)
SALES_TALK = re.compile(
    "家人们|宝宝们|姐妹们|老铁|关注|点赞|福袋|福利|直播间|链接|下单|拍下|秒杀|抢购|包邮|运费险|优惠|赠品|买一送|限时|库存"
    "|快递|发货|free shipping|link below|subscribe|discount|limited time|add to cart",
    re.IGNORECASE,
)


class Flag(StrEnum):
    """What is wrong with a phrase, or with a piece of the transcript."""

    UNSUPPORTED = "unsupported"  # not in the transcript, or with another number or the opposite
    PRICE = "price"
    SALES_TALK = "sales talk"
    FAILED_PIECE = "failed piece"  # the summary is that of the other pieces


def audit(transcript: str, product_name: str, product_features: Sequence[str]) -> list[str]:
    """Flags of a summary, each as "flag: phrase", in the order of the phrases.

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
    """Whether some part of the transcript sounds like the phrase and agrees with it."""
    wanted = speech(phrase)
    return any(agrees(wanted, heard, start, end) for start, end in matches(wanted, heard))


def matches(wanted: Speech, heard: Speech) -> Iterator[tuple[int, int]]:
    """Start and end of the parts of a transcript that sound like the phrase, the best match first.

    The rest after a match is searched next, then the rest before it: the transcript may mention
    another product's twenty pieces before the ten of its own.
    """
    windows = [(0, len(heard.sounds))]
    for _ in range(MAX_LOOKS):
        if not windows:
            return
        low, high = windows.pop()
        window = heard.sounds[low:high]
        if support(wanted.sounds, window) < SUPPORT:
            continue
        match = fuzz.partial_ratio_alignment(wanted.sounds, window)
        assert match is not None, "it is None only below a score_cutoff, and none is given"
        start, end = low + match.dest_start, low + match.dest_end
        yield start, end
        windows += [(end, high), (low, start)]


def agrees(wanted: Speech, heard: Speech, start: int, end: int) -> bool:
    """Whether the match from `start` to `end` has the phrase's numbers and negations, and no more.

    Numbers and negations may be somewhat beside the match. A "not" before it counts, even with
    auxiliaries between.
    """
    # Up to a quarter of the sounds may differ, and the match may be shorter than the phrase: what
    # is missing may be as far outside.
    slack = len(wanted.sounds) // 4 + max(0, len(wanted.sounds) - (end - start))
    before = start - 1
    while before > 0 and heard.letters[before] in AUXILIARIES:
        before -= 1
    return keeps(wanted, heard.cut(start - slack, end + slack)) and not negates_more(
        heard.cut(before, end), wanted
    )


def support(wanted: tuple[str, ...], heard: tuple[str, ...]) -> float:
    """How well the best matching part of a transcript fits a phrase, by sounds, in percent."""
    if not heard:
        return 0.0
    # Matched in part, a transcript of one word would support every phrase that contains it.
    is_longer = len(wanted) > len(heard)
    return fuzz.ratio(wanted, heard) if is_longer else fuzz.partial_ratio(wanted, heard)
