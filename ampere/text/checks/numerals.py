"""Numbers of a text in one spelling, the one they are read out in: 500, 五百 and ５００ all become 五百.

The library for it, cn2an, tells no places, and its wheel puts folders named `build`, `example` and `src` beside itself.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

DIGITS = "零一二三四五六七八九"
VALUES = {digit: value for value, digit in enumerate(DIGITS)} | {"〇": 0, "两": 2}
UNITS = {"亿": 10**8, "万": 10**4, "千": 1000, "百": 100, "十": 10}
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
           "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ENGLISH_NUMBER = re.compile(
    rf"\b(?:({'|'.join(TENS)})(?:[ -]({'|'.join(ENGLISH[1:10])}))?|({'|'.join(ENGLISH)}))\b",
    re.IGNORECASE | re.ASCII,
)
PERCENT = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s*[%％]")
LONGEST = 12  # digits of a number; what is longer is read digit by digit
D, UNIT = f"[{''.join(VALUES)}]", f"[{''.join(UNITS)}]"
HUNDREDS = rf"(?:{D}千零?)?(?:{D}百零?)?(?:{D}?十)?"
# A unit without a number before it is a part of a word (百搭), but for 十. No digit is taken from the number after it:
# 三百三百 is a stutter, and two numbers; so are two digits on end, but three are read one by one (三零四), never 两.
NUMBER = re.compile(
    rf"(?P<arabic>\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?P<tail>\.\d+)?(?P<unit>[万亿])?"
    rf"|(?=[十{D[1:-1]}])(?P<chinese>[{DIGITS}〇]{{3,}}(?!{UNIT})|(?:{HUNDREDS}{D}?亿零?)?(?:{HUNDREDS}{D}?万零?)?"
    rf"{HUNDREDS}(?:{D}(?!{UNIT}))?)(?:(?P<point>点{D}+)(?P<scale>[万亿])?(?!{UNIT}))?"
)


def spell_out(text: str) -> str:
    """A text whose shares and English numbers below a hundred are spelled as `numbers` knows them.

    >>> spell_out("100%纯棉，百分百好，twenty-four hours")
    '百分之100纯棉，百分之一百好，24 hours'
    """
    text = (
        PERCENT.sub(r"百分之\1", text)
        .replace("百分之百", "百分之一百")
        .replace("百分百", "百分之一百")
    )
    return ENGLISH_NUMBER.sub(_english_value, text)


def _english_value(found: re.Match[str]) -> str:
    tens, ones, small = ((word or "").lower() for word in found.groups())
    return str(
        (10 * TENS.index(tens) + 20 if tens else 0)
        + (ENGLISH.index(ones or small) if ones or small else 0)
    )


def numbers(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each number of a text starts and ends, and how it is read.

    >>> list(numbers("500克，一千二")) == [(0, 3, "五百"), (5, 8, "一千二百")]
    True
    """
    for match in NUMBER.finditer(text):
        if not match[0]:  # a digit that belongs to a unit after it, as in 五万亿亿
            continue
        arabic, chinese = (match["arabic"] or "").replace(",", ""), match["chinese"]
        unit = UNITS.get(match["unit"] or match["scale"] or "", 1)
        tail = "".join(
            str(VALUES.get(digit, digit)) for digit in (match["tail"] or match["point"] or "")[1:]
        )
        if tail and unit > 1:
            whole, tail = _scaled(int(arabic) if arabic else _value(chinese), tail, unit)
        else:
            whole = _spell(arabic, unit) if arabic else _spell_chinese(chinese)
        yield match.start(), match.end(), f"{whole}点{_one_by_one(tail)}" if tail else whole


def read(number: int) -> str:
    """A number as it is read: 15 is 十五, 105 一百零五, 250 二百五十."""
    if number < 10:
        return DIGITS[number]
    name, unit = next((name, unit) for name, unit in UNITS.items() if number >= unit)
    head, rest = divmod(number, unit)
    text = name if unit == 10 and head == 1 else read(head) + name
    return text + ("零" if 0 < rest < unit // 10 else "") + (read(rest) if rest else "")


def _scaled(whole: int, tail: str, unit: int) -> tuple[str, str]:
    """How a decimal in 万 or 亿 is read, and the digits that are left behind its point: 1.5 万 is 一万五千."""
    left, _, rest = format((Decimal(f"{whole}.{tail}") * unit).normalize(), "f").partition(".")
    return read(int(left)), rest


def _one_by_one(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _spell(digits: str, unit: int) -> str:
    if len(digits) > LONGEST or (digits.startswith("0") and len(digits) > 1):  # a code, such as 007
        return _one_by_one(digits)
    return read(int(digits) * unit)


def _spell_chinese(number: str) -> str:
    if set(number) & UNITS.keys():
        return read(_value(number))
    return _spell("".join(str(VALUES[digit]) for digit in number), 1)


def _value(chinese: str) -> int:
    """What a number in Chinese is: 一千零五 is 1005, 三百五 350."""
    total = section = digit = 0
    step = 1  # what a digit at the end counts: after 三百 tens, after 零 ones
    for character in chinese:
        if character in VALUES:
            digit = VALUES[character]
            step = step if digit else 1
            continue
        unit = UNITS[character]
        if unit >= 10**4:
            total, section = (
                (total + section + digit) * unit
                if unit == 10**8
                else total + (section + digit) * unit,
                0,
            )
        else:
            section += (digit or 1) * unit
        digit, step = 0, unit // 10
    return total + section + digit * step
