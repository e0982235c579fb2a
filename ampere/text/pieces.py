"""Transcripts longer than one prompt: how they are split, and how the summaries are merged."""

import re
from collections.abc import Callable, Sequence

from rapidfuzz import fuzz

from ampere.text.checks.sounds import Speech, agree, keeps, sounds, speech
from ampere.text.summary import MAX_FEATURES, Summary

# Where to split: after line breaks, else after the end of a sentence, else after any other
# punctuation or space.
BORDERS = (
    re.compile(r"(?<=\n)"),
    re.compile(r"(?<=[。！？!?；;…])|(?<=\.\s)"),
    re.compile(r"(?<=[，,、\s])"),
)
SAME = 80.0  # percent of equal sounds from which two phrases count as one

TokenCounter = Callable[[list[str]], list[int]]  # texts to their numbers of tokens


def split(text: str, max_tokens: int, count_tokens: TokenCounter) -> list[str]:
    """Split a text into pieces of at most `max_tokens`, as few as whole sentences allow.

    Args:
        text: equals its pieces joined.
        max_tokens: per piece, at least 1.
        count_tokens: counts the tokens of each of several texts.

    >>> split("一二。三四，五。六", 4, lambda texts: [len(text) for text in texts])
    ['一二。', '三四，', '五。六']
    """
    return _pack(_atoms(text, max_tokens, count_tokens, level=0), max_tokens)


def _atoms(
    text: str, max_tokens: int, count_tokens: TokenCounter, level: int
) -> list[tuple[str, int]]:
    """Sentences with their token counts; those above `max_tokens` are split further.

    Args:
        text: what is split.
        max_tokens: per sentence.
        count_tokens: counts the tokens of each of several texts.
        level: the index in `BORDERS` to split at; beyond the last, texts are halved.
    """
    tokens = count_tokens([text])[0]
    if tokens <= max_tokens:
        return [(text, tokens)]
    if level < len(BORDERS):
        parts = [part for part in BORDERS[level].split(text) if part]
    else:
        parts = [text[: len(text) // 2], text[len(text) // 2 :]] if len(text) > 1 else []
    if not parts:
        raise ValueError(
            f"{text!r} has {tokens} tokens; expected at most {max_tokens} in a piece. "
            "Raise summarize.max_model_len"
        )
    next_level = min(level + 1, len(BORDERS))
    atoms: list[tuple[str, int]] = []
    for part, size in zip(parts, count_tokens(parts), strict=True):
        if size <= max_tokens:
            atoms.append((part, size))
        else:
            atoms += _atoms(part, max_tokens, count_tokens, next_level)
    return atoms


def _pack(atoms: Sequence[tuple[str, int]], max_tokens: int) -> list[str]:
    """Join consecutive sentences while they fit into a piece."""
    pieces: list[str] = []
    room = 0
    for text, tokens in atoms:
        if pieces and tokens <= room:
            pieces[-1] += text
        else:
            pieces.append(text)
            room = max_tokens
        room -= tokens
    return pieces


def merge(summaries: Sequence[Summary]) -> Summary:
    """One summary of a transcript from those of its pieces, in their order.

    The product is the one that most pieces name. The features are those of the pieces that name it
    or no product; pieces about another product are left out.
    """
    name = _most_named([summary.product_name for summary in summaries if summary.product_name])
    features = [
        feature
        for summary in summaries
        if not summary.product_name or _is_same_product(speech(name), speech(summary.product_name))
        for feature in summary.product_features
    ]
    return Summary(product_name=name, product_features=_distinct(features))


def _most_named(names: Sequence[str]) -> str:
    """The name with most votes, the first of several; empty without names.

    A name has the votes of all that sound like it, and of shorter ones that are a part of it, since
    later mentions are shortened. Longer names do not vote for a shorter one, or 面霜 (cream) alone
    would get the votes of every cream. Of names with equally many votes, the most frequent wins.
    """
    spoken = [speech(name) for name in names]

    def votes(place: int) -> tuple[int, int]:
        one = spoken[place]
        no_longer = [other for other in spoken if len(other.sounds) <= len(one.sounds)]
        return sum(_is_same_product(one, other) for other in no_longer), names.count(names[place])

    return names[max(range(len(names)), key=votes)] if names else ""


def _is_same_product(one: Speech, other: Speech) -> bool:
    """Whether two names sound alike, or the shorter sounds like a part of the longer.

    The longer must also have the numbers and letters of the shorter: 小米14 is not 小米15, nor
    vitamin C vitamin E.
    """
    shorter, longer = sorted((one, other), key=lambda name: len(name.sounds))
    if len(shorter.sounds) < 2:
        return shorter.sounds == longer.sounds
    is_alike = fuzz.partial_ratio(shorter.sounds, longer.sounds) >= SAME
    return (
        is_alike
        and keeps(shorter, longer)
        and _variant_letters(shorter) <= _variant_letters(longer)
    )


def _variant_letters(name: Speech) -> set[str]:
    """Single Latin letters and pairs, which distinguish variants; words may be misheard."""
    return set(re.findall(r"(?<![a-z])[a-z]{1,2}(?![a-z])", "".join(name.letters)))


def _distinct(phrases: Sequence[str]) -> tuple[str, ...]:
    """The first of the phrases that mean the same, in their order, at most `MAX_FEATURES`."""
    distinct: list[str] = []
    for phrase in phrases:
        if not any(_is_same_phrase(phrase, other) for other in distinct):
            distinct.append(phrase)
    return tuple(distinct[:MAX_FEATURES])


def _is_same_phrase(one: str, other: str) -> bool:
    return fuzz.ratio(sounds(one), sounds(other)) >= SAME and agree(one, other)
