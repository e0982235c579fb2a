"""Texts by their sounds, and whether two of them can mean the same.

Speech recognizers write homophones, so texts are compared by sound: pinyin without tones, one sound
per character. A number counts as it is spoken, whatever its spelling, English words included. Two
texts can mean the same if their numbers are equal and they negate alike; negations are detected in
Chinese only.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from pypinyin import lazy_pinyin

from ampere.text.checks.numerals import numbers, spell_out

MAX_CACHED = 64  # characters; phrases recur, transcripts rarely do
# The last group is the negation. The alternatives before it are words and questions that negate
# nothing: 非常 is "very", 粘不粘 and 有没有 ask. 不不 is a stutter, and one negation.
NEGATION = re.compile(
    r"非常|除非|无论|无非|不仅|不但|不只|不光|不管|不论|不过|不断|不错|差不多|有没有"
    r"|([^不没无非])[不没]\1|([不没无非]+)"
)


@dataclass(frozen=True)
class Speech:
    """A text without punctuation and spaces.

    Attributes:
        letters: its characters, numbers as they are spoken.
        pinyin: of each character, without tones.
        sounds: pinyin in which sounds that speakers and recognizers confuse are equal: zh and z, ng
            and n at the end.
        numbers: start and end of each number.
        negations: positions of "not".
    """

    letters: tuple[str, ...]
    pinyin: tuple[str, ...]
    sounds: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...]
    negations: tuple[int, ...]

    def cut(self, start: int, end: int) -> "Speech":
        """The part from `start` to `end`.

        A number across an edge keeps its full extent, reaching out of the part: 二十 cut before 十
        is not the number 十.
        """
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
    """How a text sounds, cached for short texts."""
    return _cached_speech(text) if len(text) <= MAX_CACHED else _speech(text)


def sounds(text: str) -> tuple[str, ...]:
    """One sound per character, equal for homophones; punctuation and spaces have none."""
    return speech(text).sounds


def agree(one: str, other: str) -> bool:
    """Whether two phrases have equal numbers and negate alike; how alike they sound is not checked.

    >>> agree("500ml", "五百ml"), agree("500ml", "300ml")
    (True, False)
    >>> agree("可机洗", "不可机洗"), agree("不锈钢", "布锈钢")
    (False, True)
    """
    first, second = speech(one), speech(other)
    return keeps(first, second) and keeps(second, first)


def keeps(one: Speech, other: Speech) -> bool:
    """Whether the other says every number of one, and negates as often."""
    numbers_kept = all(_is_said(number, one, other) for number in one.numbers)
    return numbers_kept and not negates_more(one, other)


def negates_more(one: Speech, other: Speech) -> bool:
    """Whether one has a negation that the other does not have, not even misheard."""
    wanted = Counter(one.pinyin[place] for place in one.negations)
    return len(one.negations) > len(other.negations) and not wanted <= Counter(other.pinyin)


def _is_said(number: tuple[int, int], one: Speech, other: Speech) -> bool:
    """Whether the other says a number of one: as a number, or misheard as a word.

    The sounds of the number must occur in the other, in one of these ways:

    - in a number, all of whose sounds one also has in the same place. So 十 is not said in 二十,
      but the 三 of 三石克 is said in 三十克.
    - among words, more often than among the words of one. So 散百 says 三百, but the 期 of
      保质期三天 does not say the 七 of 保质期七天: 期 is a word of both.
    """
    start, end = number
    wanted = one.pinyin[start:end]

    def overlaps(place: int, span: tuple[int, int]) -> bool:
        low, high = span
        return low < place + len(wanted) and place < high

    def is_inside(place: int, span: tuple[int, int]) -> bool:
        low, high = span
        return low <= place and place + len(wanted) <= high

    def is_whole_in_one(place: int, span: tuple[int, int]) -> bool:
        low, high = span
        first = start + low - place  # where the other's number would begin in one
        return first >= 0 and one.pinyin[first:][: high - low] == other.pinyin[low:high]

    places = [
        place
        for place in _places(wanted, other.pinyin)
        if all(is_whole_in_one(place, span) for span in other.numbers if overlaps(place, span))
    ]
    if any(is_inside(place, span) for place in places for span in other.numbers):
        return True
    words_of_one = [
        place
        for place in _places(wanted, one.pinyin)
        if not any(overlaps(place, span) for span in one.numbers)
    ]
    return len(places) > len(words_of_one)


def _places(wanted: tuple[str, ...], said: tuple[str, ...]) -> list[int]:
    """Where the wanted sounds begin among those that were said."""
    return [
        place
        for place in range(len(said) - len(wanted) + 1)
        if said[place : place + len(wanted)] == wanted
    ]


def _speech(text: str) -> Speech:
    text = spell_out(text)
    letters: list[str] = []
    number_places = []
    last = 0
    for start, end, spoken in numbers(text):
        letters += _letters(text[last:start])
        number_places.append((len(letters), len(letters) + len(spoken)))
        letters += spoken
        last = end
    letters += _letters(text[last:])
    # The numbers above have 二 for 两, so words misheard for 两 must sound like 二 too.
    pinyin = tuple("er" if sound == "liang" else sound for sound in lazy_pinyin(letters))
    sounds = tuple(_merged(sound) for sound in pinyin)
    negations = tuple(m.start(2) for m in NEGATION.finditer("".join(letters)) if m[2])
    return Speech(tuple(letters), pinyin, sounds, tuple(number_places), negations)


_cached_speech = lru_cache(maxsize=1024)(_speech)


def _letters(text: str) -> list[str]:
    return [c for c in text.lower() if c.isalnum()]


def _merged(sound: str) -> str:
    """A sound without the distinctions that are often lost: zh is z, ng is n."""
    return re.sub(r"^([zcs])h", r"\1", re.sub(r"ng$", "n", sound))
