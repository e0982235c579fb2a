"""Normalization of texts before a model reads them, the same for transcripts, titles and queries.

The tables keep texts as the catalog has them. docs/guides/summaries.md lists the rules with
examples, which a test reads.
"""

import re
import unicodedata

# Increment it when a rule changes: summaries and embeddings made with other rules become stale.
NORMALIZATION = 1

# Characters without a glyph that are not in category Cf (Unicode: Default_Ignorable_Code_Point).
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Full-width letters and digits, the ideographic space, and radicals that look like characters.
COMPATIBLE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u3000\u2f00-\u2fd5]+")
SPACES = re.compile(r"[^\S\n]+|\u2800+")  # U+2800 is the blank Braille pattern
# Chinese characters, kana and Bopomofo, whose words are written without spaces. Not Korean.
IDEOGRAPH = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
PUNCTUATION = "，。！？；：、（）「」『』《》【】〈〉〔〕"
NEEDLESS_SPACE = re.compile(
    rf"(?<=[{IDEOGRAPH}]) (?=[{IDEOGRAPH}])|(?<=[{PUNCTUATION}]) | (?=[{PUNCTUATION}])"
)
SPACED_ASCII_MARK = re.compile(
    rf"(?<=[{IDEOGRAPH}]) ?([,.!?;:]) ?(?=[{IDEOGRAPH}]|$)", re.MULTILINE
)
# How data frames and databases write a missing value.
NULL_WORDS = frozenset(
    ["nan", "-nan", "none", "null", "(null)", "<null>", "nil", "<na>", "na", "n/a", "#n/a", "#na"]
    + ["nat", "undefined"]
)


def normalize(text: str) -> str:
    """Write a text without invisible characters, and without spaces between Chinese characters.

    Line breaks stay, since they separate sentences. Words of other scripts stay apart.

    >>> normalize("这 款\u200b　ｉＰｈｏｎｅ 15 Pro 手 机 壳 ， 很 好")
    '这款 iPhone 15 Pro 手机壳，很好'
    """
    text = COMPATIBLE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = unicodedata.normalize("NFC", text)
    text = INVISIBLE.sub("", "".join(c for c in text if not _is_control(c)))
    text = SPACES.sub(" ", text)
    text = SPACED_ASCII_MARK.sub(r"\1", NEEDLESS_SPACE.sub("", text))
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def readable_text(text: str | None) -> str | None:
    """The normalized text; None if it is missing.

    A text counts as missing if it has no letter and no digit, or if it is only a null word of a
    data frame, such as nan.
    """
    if not text:
        return None
    normalized = normalize(text)
    if not any(character.isalnum() for character in normalized):
        return None
    return None if normalized.lower() in NULL_WORDS else normalized


def _is_control(character: str) -> bool:
    """Control, format and surrogate characters, except those that are spaces."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and not character.isspace()
