"""Numbers in a text, all in one spelling, the spoken one: 500, 五百 and ５００ all become 五百.

The library for this, cn2an, does not report positions, and its wheel installs top-level packages
named `build`, `example` and `src`.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

DIGITS = "零一二三四五六七八九"
VALUES = {digit: value for value, digit in enumerate(DIGITS)} | {"〇": 0, "两": 2}
UNITS = {"亿": 10**8, "万": 10**4, "千": 1000, "百": 100, "十": 10}
ENGLISH = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ENGLISH_NUMBER = re.compile(
    rf"\b(?:({'|'.join(TENS)})(?:[ -]({'|'.join(ENGLISH[1:10])}))?|({'|'.join(ENGLISH)}))\b",
    re.IGNORECASE | re.ASCII,
)
PERCENT = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s*[%％]")
MAX_DIGITS = 12  # of a number; longer ones are codes and read digit by digit

DIGIT, UNIT = f"[{''.join(VALUES)}]", f"[{''.join(UNITS)}]"
# Below 万, without a final digit: 三千零, 三千五百, 三百五十, 十.
SECTION = rf"(?:{DIGIT}千零?)?(?:{DIGIT}百零?)?(?:{DIGIT}?十)?"
NUMBER = re.compile(
    rf"""
    (?P<arabic> \d{{1,3}}(?:,\d{{3}})+(?!\d) | \d+ )    # 1,200 or 1200
    (?P<decimals> \.\d+ )?
    (?P<unit> [万亿] )?
    |
    (?=[十{"".join(VALUES)}])       # any other unit without a digit is a part of a word: 百搭
    (?P<chinese>
        [{DIGITS}〇]{{3,}}(?!{UNIT})            # read digit by digit: 三零四; never with 两
        |
        (?:{SECTION}{DIGIT}?亿零?)?
        (?:{SECTION}{DIGIT}?万零?)?
        {SECTION}(?:{DIGIT}(?!{UNIT}))?         # a digit before a unit begins the next number:
    )                                           # 三百三百 is a stutter, and two numbers
    (?:
        (?P<point> 点{DIGIT}+ )
        (?P<scale> [万亿] )?
        (?!{UNIT})
    )?
    """,
    re.VERBOSE,
)


def spell_out(text: str) -> str:
    """Write percentages and English numbers below a hundred in a form that `numbers` reads.

    >>> spell_out("100%纯棉，百分百好，twenty-four hours")
    '百分之100纯棉，百分之一百好，24 hours'
    """
    text = PERCENT.sub(r"百分之\1", text)
    text = text.replace("百分之百", "百分之一百").replace("百分百", "百分之一百")
    return ENGLISH_NUMBER.sub(_english_value, text)


def _english_value(match: re.Match[str]) -> str:
    tens, ones, below_twenty = ((word or "").lower() for word in match.groups())
    value = 10 * TENS.index(tens) + 20 if tens else 0
    if digit := ones or below_twenty:
        value += ENGLISH.index(digit)
    return str(value)


def numbers(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and spoken form of each number in a text, in order.

    >>> list(numbers("500克，一千二")) == [(0, 3, "五百"), (5, 8, "一千二百")]
    True
    """
    for match in NUMBER.finditer(text):
        if match[0]:  # empty before a digit that belongs to the next unit, as in 五万亿亿
            yield match.start(), match.end(), _spoken(match)


def _spoken(match: re.Match[str]) -> str:
    """How a match of `NUMBER` is read."""
    arabic, chinese = (match["arabic"] or "").replace(",", ""), match["chinese"]
    decimals = (match["decimals"] or match["point"] or "")[1:]
    decimals = "".join(str(VALUES.get(digit, digit)) for digit in decimals)
    unit = UNITS.get(match["unit"] or match["scale"] or "", 1)
    if decimals and unit > 1:
        whole, decimals = _scaled(int(arabic) if arabic else _value(chinese), decimals, unit)
    else:
        whole = _spell(arabic, unit) if arabic else _spell_chinese(chinese)
    return f"{whole}点{_digit_by_digit(decimals)}" if decimals else whole


def read(number: int) -> str:
    """A number as it is spoken: 15 is 十五, 105 一百零五, 250 二百五十."""
    if number < 10:
        return DIGITS[number]
    name, unit = next((name, unit) for name, unit in UNITS.items() if number >= unit)
    head, rest = divmod(number, unit)
    text = name if unit == 10 and head == 1 else read(head) + name
    return text + ("零" if 0 < rest < unit // 10 else "") + (read(rest) if rest else "")


def _scaled(whole: int, decimals: str, unit: int) -> tuple[str, str]:
    """The spoken form of a decimal in 万 or 亿, and its remaining decimals: 1.5 万 is 一万五千."""
    product = (Decimal(f"{whole}.{decimals}") * unit).normalize()
    left, _, rest = format(product, "f").partition(".")
    return read(int(left)), rest


def _digit_by_digit(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _spell(digits: str, unit: int) -> str:
    has_leading_zero = digits.startswith("0") and len(digits) > 1  # a code, such as 007
    if has_leading_zero or len(digits) > MAX_DIGITS:
        return _digit_by_digit(digits)
    return read(int(digits) * unit)


def _spell_chinese(number: str) -> str:
    if set(number) & UNITS.keys():
        return read(_value(number))
    return _spell("".join(str(VALUES[digit]) for digit in number), 1)


def _value(chinese: str) -> int:
    """The value of a number in Chinese: 一千零五 is 1005, 三百五 350, 三零四 304."""
    if not set(chinese) & UNITS.keys():
        return int("".join(str(VALUES[digit]) for digit in chinese))
    total, rest = 0, chinese
    for unit in "亿万":
        section, separator, tail = rest.partition(unit)
        if separator:
            total, rest = total + _section_value(section) * UNITS[unit], tail
    # A digit right after a unit counts a tenth of it: 三百五 is 350, and 三百零五 is 305.
    last = VALUES.get(chinese[-1], 0)
    step = UNITS.get(chinese[-2:-1], 10) // 10
    return total + _section_value(rest) + last * (step - 1)


def _section_value(section: str) -> int:
    """The value of a part of a number below 万; 0 for an empty one."""
    value = digit = 0
    for character in section:
        if character in UNITS:
            value, digit = value + (digit or 1) * UNITS[character], 0
        else:
            digit = VALUES[character]
    return value + digit
