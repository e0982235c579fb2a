"""Cleaning of transcripts before a model reads them. The samples table keeps the raw transcript."""

import re
import unicodedata
from collections.abc import Iterable

NUMERAL = r"\d零〇一二两三四五六七八九十百千万亿"
# A chant, or a recognizer's loop: up to 30 characters, optionally with a number before them, three
# or more times in a row. Never a number alone: 2000W is not 20W.
CHANT = re.compile(rf"([{NUMERAL}]{{0,29}}[^{NUMERAL}].{{0,29}}?)\1{{2,}}", re.DOTALL)
# Not a chant: 3 to 11 times one letter, or one digit with points between: XXXL is not XL, aaa is
# not a, 1.1.1.1 is not 1.1.
NO_CHANT = re.compile(r"([A-Za-zＡ-Ｚａ-ｚ])(?:[ .]?\1){2,9}|(\d)(?:\.\2){2,}")
PRIVATE_USE = range(0xF0000, 0xFFFFE)  # code points of Unicode's plane 15; no script uses them
SPACE = re.compile(r"[^\S\n]+")


def clean(text: str, marks: Iterable[str] = ()) -> str:
    r"""Remove control characters, runs of spaces, repeated chants and a model's own marks.

    Args:
        text: the raw transcript.
        marks: strings with a meaning in a model's chat template, such as <|im_end|>. Left in, a
            transcript could end its own turn and speak as the system.

    >>> clean("买它买它买它买它这个\x00 绿茶<|im_end|>", ["<|im_end|>"])
    '买它这个 绿茶'
    """
    longest_first = sorted(marks, key=len, reverse=True)  # a longer mark may contain a shorter one
    # Repeat until nothing changes: what stood around a removed part may form a new mark or chant.
    while (cleaned := _clean_once(text, longest_first)) != text:
        text = cleaned
    return text


def _clean_once(text: str, marks: list[str]) -> str:
    for mark in marks:
        text = text.replace(mark, " ")
    text = "".join(" " if _is_control(character) else character for character in text)
    text = "\n".join(line.strip() for line in SPACE.sub(" ", text).split("\n") if line.strip())
    return _collapse_chants(text)


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


def _is_control(character: str) -> bool:
    """Control, format and surrogate characters, except the line break."""
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
