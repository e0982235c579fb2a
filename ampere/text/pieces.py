"""Transcripts longer than a model reads at once: how they are cut, and how what was found in the pieces is joined."""

import re
from collections.abc import Callable, Sequence

from rapidfuzz import fuzz

from ampere.text.checks.sounds import Speech, agree, keeps, sounds, speech
from ampere.text.summary import MAX_FEATURES, NO_PRODUCT, Summary

# After a line break, else after a mark that ends a sentence, else after any other mark or space.
BORDERS = (
    re.compile(r"(?<=\n)"),
    re.compile(r"(?<=[。！？!?；;…])|(?<=\.\s)"),
    re.compile(r"(?<=[，,、\s])"),
)
SAME = 80.0  # percent of sounds in common that make two phrases one


def split(text: str, longest: int, count: Callable[[list[str]], list[int]]) -> list[str]:
    """Cut a text into pieces that have at most `longest` tokens, as few as whole sentences allow.

    Args:
        text: which pieces, joined, give again.
        longest: tokens per piece, at least 1.
        count: numbers of tokens of some texts.

    >>> split("一二。三四，五。六", 4, lambda texts: [len(text) for text in texts])
    ['一二。', '三四，', '五。六']
    """
    return _pack(_atoms(text, longest, count, 0), longest)


def _atoms(
    text: str, longest: int, count: Callable[[list[str]], list[int]], level: int
) -> list[tuple[str, int]]:
    """Stretches of a text with their token counts, none over `longest`: sentences, and parts of those too long."""
    tokens = count([text])[0]
    if tokens <= longest:
        return [(text, tokens)]
    if level < len(BORDERS):
        parts = [part for part in BORDERS[level].split(text) if part]
    else:
        parts = [text[: len(text) // 2], text[len(text) // 2 :]] if len(text) > 1 else []
    if not parts:
        raise ValueError(
            f"{text!r} has {tokens} tokens, and a piece may have {longest}; raise summarize.max_model_len"
        )
    deeper = min(level + 1, len(BORDERS))
    sizes = count(parts)
    found: list[tuple[str, int]] = []
    for part, size in zip(parts, sizes, strict=True):
        found += [(part, size)] if size <= longest else _atoms(part, longest, count, deeper)
    return found


def _pack(atoms: Sequence[tuple[str, int]], longest: int) -> list[str]:
    pieces: list[str] = []
    room = 0
    for text, tokens in atoms:
        if pieces and tokens <= room:
            pieces[-1] += text
        else:
            pieces.append(text)
            room = longest
        room -= tokens
    return pieces


def merge(summaries: Sequence[Summary]) -> Summary:
    """One summary of what was found in the pieces of one transcript, in their order.

    The product is the one that most pieces name. Names that sound alike count as one, and a name also counts for a
    longer one that holds it, for later mentions are shortened; not the other way round, or 面霜 alone would collect the
    votes of every cream. Of names with equally many votes the one that was read most often wins. Features are those of
    the pieces that name the product or nothing; pieces about another product are left out.
    """
    named = [
        (summary.product_name, speech(summary.product_name))
        for summary in summaries
        if summary.product_name
    ]
    if not named:
        features = [feature for summary in summaries for feature in summary.product_features]
        return (
            Summary(product_name="", product_features=_distinct(features))
            if features
            else NO_PRODUCT
        )
    shorter = [
        [_same(one, other) for _, other in named if len(other.sounds) <= len(one.sounds)]
        for _, one in named
    ]
    votes = [(sum(same), named.count(entry)) for same, entry in zip(shorter, named, strict=True)]
    name, winner = named[votes.index(max(votes))]
    about_it = [s for s in summaries if not s.product_name or _same(winner, speech(s.product_name))]
    features = [feature for summary in about_it for feature in summary.product_features]
    return Summary(product_name=name, product_features=_distinct(features))


def _same(one: Speech, other: Speech) -> bool:
    """Whether two names are one: they sound alike, or the shorter is a part of the longer, and so are its numbers and
    its letters: 小米14 is not 小米15, nor vitamin C vitamin E."""
    shorter, longer = sorted((one, other), key=lambda name: len(name.sounds))
    if len(shorter.sounds) < 2:
        return shorter.sounds == longer.sounds
    alike = fuzz.partial_ratio(shorter.sounds, longer.sounds) >= SAME
    return alike and keeps(shorter, longer) and _letters(shorter) <= _letters(longer)


def _letters(name: Speech) -> set[str]:
    """Latin letters that stand alone or in pairs, which tell variants of a product apart; words may be misheard."""
    return set(re.findall(r"(?<![a-z])[a-z]{1,2}(?![a-z])", "".join(name.letters)))


def _distinct(phrases: Sequence[str]) -> tuple[str, ...]:
    """Phrases in their order, of those that say the same the first; as many as one summary may have."""
    kept: list[str] = []
    for phrase in phrases:
        if not any(
            fuzz.ratio(sounds(phrase), sounds(other)) >= SAME and agree(phrase, other)
            for other in kept
        ):
            kept.append(phrase)
    return tuple(kept[:MAX_FEATURES])
