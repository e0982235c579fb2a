"""Cleaning of transcripts before a model reads them. The samples table keeps the raw transcript."""

import re
from collections.abc import Iterable

from ampere.text.normalize import normalize

NUMERAL = r"\d零〇一二两三四五六七八九十百千万亿"
# A chant, or a recognizer's loop: up to 30 characters, optionally with a number before them, three
# or more times in a row. Never a number alone: 2000W is not 20W.
CHANT = re.compile(rf"([{NUMERAL}]{{0,29}}[^{NUMERAL}].{{0,29}}?)\1{{2,}}", re.DOTALL)
# Not a chant: 3 to 11 times one letter, or one digit with points between: XXXL is not XL, aaa is
# not a, 1.1.1.1 is not 1.1.
NO_CHANT = re.compile(r"([A-Za-z])(?:[ .]?\1){2,9}|(\d)(?:\.\2){2,}")
PRIVATE_USE = range(0xF0000, 0xFFFFE)  # code points of Unicode's plane 15; no script uses them
LONG_LOOP = 31  # characters; shorter ones are chants
COPIES = 3  # from which a repetition is a loop
GRAM = 16  # characters that must recur before whole copies are compared
MAX_CANDIDATES = 8  # distances at which a copy may follow


def clean(text: str, marks: Iterable[str] = ()) -> str:
    r"""Normalize a transcript, and remove chants, loops and a model's own marks.

    Args:
        text: the raw transcript.
        marks: strings with a meaning in a model's chat template, such as <|im_end|>. Left in, a
            transcript could end its own turn and speak as the system.

    >>> clean("买它买它买它买它这个\x00 绿茶<|im_end|>", ["<|im_end|>"])
    '买它这个绿茶'
    """
    longest_first = sorted(marks, key=len, reverse=True)  # a longer mark may contain a shorter one
    # Repeat until nothing changes: what stood around a removed part may form a new mark or chant.
    while (cleaned := _clean_once(text, longest_first)) != text:
        text = cleaned
    return text


def _clean_once(text: str, marks: list[str]) -> str:
    text = normalize(text)
    for mark in marks:
        text = text.replace(mark, " ")
    return _collapse_loops(_collapse_chants(normalize(text)))


def _collapse_chants(text: str) -> str:
    """Keep one repetition of each chant.

    Runs that are not chants, such as XXX, are replaced by an unused character meanwhile. So a chant
    can contain a whole run, and never a part of one: three times XXXL leaves XXXL.
    """
    unused = (chr(code) for code in PRIVATE_USE if chr(code) not in text)
    runs = dict.fromkeys(match[0] for match in NO_CHANT.finditer(text))
    placeholders = {run: next(unused) for run in runs}
    text = NO_CHANT.sub(lambda match: placeholders[match[0]], text)
    text = CHANT.sub(r"\1", text)
    for run, placeholder in placeholders.items():
        text = text.replace(placeholder, run)
    return text


def _collapse_loops(text: str) -> str:
    """Keep one copy of each passage that follows itself at least twice, whatever its length.

    A recognizer that is stuck repeats a sentence or a paragraph. The separator after the last copy
    may be missing, and the text may end within a copy.
    """
    if len(text) < COPIES * LONG_LOOP - 1:
        return text
    following = _next_occurrences(text)
    kept, start, at = [], 0, 0
    while at < len(text):
        period = _loop_period(text, at, following)
        if not period:
            at += 1
            continue
        unit = text[at : at + period]
        end = at + period
        while text.startswith(unit, end):
            end += period
        if text.startswith(unit[:-1], end):  # the last copy has no separator
            unit, end = unit[:-1], end + period - 1
        elif unit.startswith(text[end:]):  # the text ends within a copy
            end = len(text)
        kept += [text[start:at], unit]
        start = at = end
    return "".join([*kept, text[start:]])


def _next_occurrences(text: str) -> list[int]:
    """For each position, where its next `GRAM` characters occur again; 0: nowhere."""
    last: dict[str, int] = {}
    following = [0] * len(text)
    for at in range(len(text) - GRAM, -1, -1):
        gram = text[at : at + GRAM]
        following[at] = last.get(gram, 0)
        last[gram] = at
    return following


def _loop_period(text: str, start: int, following: list[int]) -> int:
    """Length of the passage that is repeated from `start` on; 0: none is."""
    copy = start
    for _ in range(MAX_CANDIDATES):
        copy = following[copy]
        period = copy - start
        if not copy or start + COPIES * period - 1 > len(text):
            return 0
        if period < LONG_LOOP or not text.startswith(text[start : start + GRAM], copy + period):
            continue
        # Without the last character, which may be a separator.
        if text.startswith(text[start : start + (COPIES - 1) * period - 1], copy):
            return period
    return 0
