"""Texts by their sounds, and whether two of them can mean the same: equal numbers, and no "not" more.

Speech recognisers write homophones, so sounds are compared (pinyin without tones), a sound for each character. A number
counts as it is read, whatever its spelling, English words included; negations are found in Chinese only.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from pypinyin import lazy_pinyin

from ampere.text.checks.numerals import numbers, spell_out

LONGEST_CACHED = 64  # characters; phrases come again, transcripts hardly
# The last group negates. The words before it do not: 非常 is "very", 粘不粘 and 有没有 ask. 不不 is a stutter, and one.
NEGATION = re.compile(
    r"非常|除非|无论|无非|不仅|不但|不只|不光|不管|不论|不过|不断|不错|差不多|有没有|([^不没无非])[不没]\1|([不没无非]+)"
)


@dataclass(frozen=True)
class Speech:
    """A text without marks and spaces.

    Attributes:
        letters: its characters, numbers as they are read.
        pinyin: of each character, without tones.
        sounds: the same, but those that speakers and recognisers mix up (zh and z, ng and n at the end) count as one.
        numbers: start and end of each number.
        negations: places of "not".
    """

    letters: tuple[str, ...]
    pinyin: tuple[str, ...]
    sounds: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...]
    negations: tuple[int, ...]

    def cut(self, start: int, end: int) -> "Speech":
        """A stretch of it. A number that the cut goes through reaches over the edge, so that it is not taken for a
        smaller one."""
        start = max(0, start)
        return Speech(
            self.letters[start:end],
            self.pinyin[start:end],
            self.sounds[start:end],
            tuple(
                (low - start, high - start)
                for low, high in self.numbers
                if low < end and start < high
            ),
            tuple(place - start for place in self.negations if start <= place < end),
        )


def speech(text: str) -> Speech:
    """How a text sounds."""
    return _cached_speech(text) if len(text) <= LONGEST_CACHED else _speech(text)


def sounds(text: str) -> tuple[str, ...]:
    """A sound for each character, so that homophones are equal; punctuation and spaces have none."""
    return speech(text).sounds


def agree(one: str, other: str) -> bool:
    """Whether two phrases, however alike they sound, have equal numbers and negate alike.

    >>> agree("500ml", "五百ml"), agree("500ml", "300ml"), agree("可机洗", "不可机洗"), agree("不锈钢", "布锈钢")
    (True, False, False, True)
    """
    first, second = speech(one), speech(other)
    return keeps(first, second) and keeps(second, first)


def keeps(one: Speech, other: Speech) -> bool:
    """Whether every number and every negation of one is also said in the other."""
    return all(_is_said(number, one, other) for number in one.numbers) and not negates_more(
        one, other
    )


def negates_more(one: Speech, other: Speech) -> bool:
    """Whether one has a negation for which the other has none, nor a character that sounds like it."""
    wanted = Counter(one.pinyin[place] for place in one.negations)
    return len(one.negations) > len(other.negations) and not wanted <= Counter(other.pinyin)


def _is_said(number: tuple[int, int], one: Speech, other: Speech) -> bool:
    """Whether the sounds of one's number stand in the other, and not as a part of another number there.

    十 is not said in 二十. But 三, the number of 三石克, is said in 三十克: all of 三十 sounds like what one has there.
    A misheard number, 散百, is among the other's words and no word of one: the 期 of 保质期三天 does not say the 七 of
    保质期七天.
    """
    start, end = number
    wanted = one.pinyin[start:end]
    found = [
        place
        for place in _places(wanted, other.pinyin)
        if all(
            high <= place
            or place + len(wanted) <= low
            or (
                low + start - place >= 0
                and one.pinyin[low + start - place :][: high - low] == other.pinyin[low:high]
            )
            for low, high in other.numbers
        )
    ]
    if any(
        low <= place and place + len(wanted) <= high
        for place in found
        for low, high in other.numbers
    ):
        return True
    words = [
        place
        for place in _places(wanted, one.pinyin)
        if all(high <= place or place + len(wanted) <= low for low, high in one.numbers)
    ]
    return len(found) > len(words)


def _places(wanted: tuple[str, ...], said: tuple[str, ...]) -> list[int]:
    return [
        place
        for place in range(len(said) - len(wanted) + 1)
        if said[place : place + len(wanted)] == wanted
    ]


def _speech(text: str) -> Speech:
    text = spell_out(text)
    letters: list[str] = []
    places = []
    last = 0
    for start, end, read in numbers(text):
        letters += _letters(text[last:start])
        places.append((len(letters), len(letters) + len(read)))
        letters += read
        last = end
    letters += _letters(text[last:])
    # 两 became 二 above, so what is misheard for it must sound like that too.
    pinyin = tuple("er" if sound == "liang" else sound for sound in lazy_pinyin(letters))
    negations = tuple(found.start(2) for found in NEGATION.finditer("".join(letters)) if found[2])
    return Speech(tuple(letters), pinyin, tuple(map(_plain, pinyin)), tuple(places), negations)


_cached_speech = lru_cache(maxsize=1024)(_speech)


def _letters(text: str) -> list[str]:
    return [c for c in text.lower() if c.isalnum()]


def _plain(sound: str) -> str:
    return re.sub(r"^([zcs])h", r"\1", re.sub(r"ng$", "n", sound))
