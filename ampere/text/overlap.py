"""Join the texts of two pieces of audio that overlap in time."""

import re
import unicodedata
from itertools import product

from ampere.text.normalize import IDEOGRAPH, NEEDLESS_SPACE

# One Chinese character or kana, or one word of another script.
TOKEN = re.compile(rf"[{IDEOGRAPH}]|[^\W_{IDEOGRAPH}]+(?:['’][^\W_{IDEOGRAPH}]+)*")
MAX_TOKENS = 20  # of the overlap, which is a second or so
MAX_CUT = 2  # tokens beside it that were cut in two, and so misheard


def merge_texts(first: str, second: str) -> str:
    """Join two texts; what the end of the first and the beginning of the second share, once.

    They share the longest run of words, or of Chinese or Japanese characters, whatever its case and
    punctuation. Around a run of two tokens or more, up to `MAX_CUT` tokens that were cut in two are
    dropped: after it in the first text, and before it in the second. Texts that share nothing are
    joined as by `join_texts`.

    >>> merge_texts("It has a washable cov.", "A washable cover, and fits")
    'It has a washable cover, and fits'
    >>> merge_texts("这款绿茶产自杭州", "自杭州，今天买一送一")
    '这款绿茶产自杭州，今天买一送一'
    """
    first, second = first.strip(), second.strip()
    before, after = list(TOKEN.finditer(first)), list(TOKEN.finditer(second))
    # The run ends `cut` tokens before the end of the first text, and `end` tokens into the second.
    length, cut, end = _shared(_keys(before[-MAX_TOKENS:]), _keys(after[:MAX_TOKENS]))
    if not length:
        return join_texts(first, second)
    if end == len(after):
        return first  # the second text brings nothing new
    return first[: before[-1 - cut].end()] + second[after[end - 1].end() :]


def join_texts(first: str, second: str) -> str:
    """Two texts in order, with a space between them where `normalize` would keep one.

    >>> join_texts("今天只要", "九十九元"), join_texts("only", "today"), join_texts("", "a")
    ('今天只要九十九元', 'only today', 'a')
    """
    if not first or not second:
        return first or second
    space = "" if NEEDLESS_SPACE.search(f"{first[-1]} {second[0]}") else " "
    return first + space + second


def _keys(tokens: list[re.Match[str]]) -> list[str]:
    normalized = (unicodedata.normalize("NFKC", token[0]) for token in tokens)
    return [key.casefold().replace("’", "'") for key in normalized]


def _shared(before: list[str], after: list[str]) -> tuple[int, int, int]:
    """The longest run of tokens that ends one list and begins another, but for tokens cut in two.

    Returns:
        Length of the run, 0 if there is none; number of tokens after it in the first list; and
        where it ends in the second.
    """
    runs = [(0, 0, 0)]
    for cut_before, cut_after in product(range(MAX_CUT + 1), repeat=2):
        kept, rest = before[: len(before) - cut_before], after[cut_after:]
        shortest = max(cut_before + cut_after, 2) if cut_before or cut_after else 1
        for length in range(shortest, min(len(kept), len(rest)) + 1):
            if kept[-length:] == rest[:length]:
                runs.append((length, cut_before, cut_after + length))
    return max(runs, key=lambda run: (run[0], -run[1] - run[2]))
