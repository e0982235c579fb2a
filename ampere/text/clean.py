"""What is taken out of a transcript before a model reads it; the table of samples keeps it as it came."""

import re
import unicodedata
from collections.abc import Iterable

NUMERAL = r"\d零〇一二两三四五六七八九十百千万亿"
# A stretch of up to 30 characters, and perhaps a number before them, said three or more times on end: a recogniser's
# loop, or a chant. Never a number alone: 2000W is not 20W.
CHANT = re.compile(rf"([{NUMERAL}]{{0,29}}[^{NUMERAL}].{{0,29}}?)\1{{2,}}", re.DOTALL)
# Nor one letter up to ten times, or a digit with points between: XXXL is not XL, nor aaa a, nor 1.1.1.1 1.1.
NO_CHANT = re.compile(r"([A-Za-zＡ-Ｚａ-ｚ])(?:[ .]?\1){2,9}|(\d)(?:\.\2){2,}")
SPARE = range(0xF0000, 0xFFFFE)  # characters that no text has, to stand for what is no chant
SPACE = re.compile(r"[^\S\n]+")


def clean(text: str, marks: Iterable[str] = ()) -> str:
    """A transcript without control characters, runs of spaces, chants and a model's own marks.

    Args:
        text: as the recogniser wrote it.
        marks: what a model's chat template separates turns with, such as <|im_end|>. A transcript that holds one would
            else end its own turn and speak for the system.

    >>> clean("买它买它买它买它这个\\x00 绿茶<|im_end|>", ["<|im_end|>"])
    '买它这个 绿茶'
    """
    ordered = sorted(marks, key=len, reverse=True)  # a longer mark may hold a shorter one
    # Where something is taken out, what stood around it may make a mark, or a chant.
    while (cleaned := _clean_once(text, ordered)) != text:
        text = cleaned
    return text


def _clean_once(text: str, marks: list[str]) -> str:
    for mark in marks:
        text = text.replace(mark, " ")
    text = "".join(" " if _is_control(character) else character for character in text)
    text = "\n".join(line.strip() for line in SPACE.sub(" ", text).split("\n") if line.strip())
    spare = (chr(code) for code in SPARE if chr(code) not in text)
    kept = {found[0]: next(spare) for found in NO_CHANT.finditer(text)}
    text = CHANT.sub(r"\1", NO_CHANT.sub(lambda found: kept[found[0]], text))
    for run, stand_in in kept.items():
        text = text.replace(stand_in, run)
    return text


def _is_control(character: str) -> bool:
    """Control, format and surrogate characters, except the line break."""
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
