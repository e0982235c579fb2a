"""Where to play a clip that was found: the segment of its speech that names the product."""

from collections.abc import Iterable

from ampere.retrieval.explain import split_words, words_in
from ampere.text.transcript import Segment


def naming_segment(segments: Iterable[Segment], words: str | None) -> Segment | None:
    """The segment that holds the most of some words; the first of equals, None if none holds any.

    >>> naming_segment([Segment(0, 4, "大家好"), Segment(4, 9, "这款蓝牙耳机")], "耳机")
    Segment(start_s=4, end_s=9, text='这款蓝牙耳机')
    """
    if not words:
        return None
    split = split_words(words)
    held = [(len(words_in(split, segment.text)), segment) for segment in segments]
    count, best = max(held, key=lambda item: item[0], default=(0, None))
    return best if count else None
