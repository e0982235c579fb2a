"""Why a sample was found."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The parts of a hit's score; None where a part does not apply.

    Attributes:
        similarity: cosine of the stored vector and the query's.
        vector_rank: among the rows of its domain by vector, from 1; None: not among those ranked.
        lexical_score: BM25.
        lexical_rank: among the rows of its domain by words, from 1.
        file_similarity: cosine of the stored vector and that of the query's file alone.
        words_similarity: the same of the query's words alone.
        matched_words: words of the query that the sample's text holds, in lower case.
    """

    similarity: float | None
    vector_rank: int | None
    lexical_score: float | None
    lexical_rank: int | None
    file_similarity: float | None
    words_similarity: float | None
    matched_words: tuple[str, ...]


def matched_words(query: str | None, text: str | None) -> tuple[str, ...]:
    """Words of a query that a text holds, in their order, in lower case.

    Chinese is split by jieba, other scripts at spaces and punctuation. The full-text index may
    split a rare name otherwise.

    >>> matched_words("红色 Nike 跑鞋", "nike 透气跑鞋 2026")
    ('nike', '跑鞋')
    """
    return words_in(split_words(query), text) if query and text else ()


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text, each once, in lower case."""
    import jieba  # takes most of a second

    jieba.setLogLevel(logging.WARNING)
    words = (word for word in jieba.cut(text.lower()) if re.search(r"\w", word))
    return tuple(dict.fromkeys(words))


def words_in(words: Iterable[str], text: str) -> tuple[str, ...]:
    """Those of some lower-case words that a text holds."""
    held = text.lower()
    in_text = set(re.findall(r"[a-z0-9]+", held))
    return tuple(word for word in words if (word in in_text if word.isascii() else word in held))
