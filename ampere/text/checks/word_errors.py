"""Error rates of transcripts: of characters where words have no spaces, of words elsewhere.

Both texts are normalized first: NFKC and lower case; apostrophes inside a word and commas between
thousands are removed ("don't" becomes dont, "1,000" becomes 1000); all other characters that are no
letter, mark or digit separate words, and do not count. Nothing else is made equal: "2" and "two"
differ, and so do simplified and traditional characters.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from ampere.bootstrap import Rate, interval, resampled_sums

# Those that Whisper's authors score by character, and Korean, whose spaces writers set freely.
BY_CHARACTER = frozenset(["zh", "yue", "ja", "ko", "th", "lo", "km", "my"])
SCRIPTS = {  # the first that occurs names the language; Japanese writes Chinese characters, too
    "ja": re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f]"),
    "ko": re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"),
}
OTHER = "other"  # language of a text without these scripts
REMOVED = re.compile(r"(?<=\w)['’](?=\w)|(?<=\d),(?=\d{3})")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What was said in a clip.

    Attributes:
        text: all of it.
        language: ISO 639-1 code; empty: by the script of the text.
    """

    text: str
    language: str = ""

    @property
    def language_code(self) -> str:
        """Language without a region; zh, ja, ko or other if the label has none."""
        if self.language:
            return re.split("[-_]", self.language.lower())[0]
        scripts = (name for name, script in SCRIPTS.items() if script.search(self.text))
        return next(scripts, OTHER)


@dataclass(frozen=True, kw_only=True)
class TranscriptScores:
    """Errors over clips.

    Attributes:
        clips: number of them.
        without_transcript: those that have none; all their tokens count as deleted.
        tokens: what was said: characters, words, or both.
        substituted, deleted, inserted: tokens that were heard as others, not heard, not said.
        error_rate: their sum over the tokens; above 1 where much was heard that was not said.
    """

    clips: int
    without_transcript: int
    tokens: int
    substituted: int
    deleted: int
    inserted: int
    error_rate: Rate


def score_transcripts(
    pairs: Sequence[tuple[str | None, Reference]],
) -> dict[str, TranscriptScores]:
    """Score (transcript, reference) pairs: `all`, then each language in order of its name.

    Args:
        pairs: None instead of a transcript: there is none. An empty one: no speech was heard.
    """
    counts = np.array([_counts(text, reference) for text, reference in pairs], float)
    languages = np.array([reference.language_code for _, reference in pairs])
    missing = np.array([text is None for text, _ in pairs])
    masks = {"all": np.ones(len(pairs), bool)}
    masks |= {str(name): languages == name for name in np.unique(languages)}
    return {name: _scores(counts[mask], int(missing[mask].sum())) for name, mask in masks.items()}


def _scores(counts: NDArray[np.float64], without_transcript: int) -> TranscriptScores:
    """Scores of clips from their counts, float [N, 4] as in `_counts`, N at least 1."""
    tokens, substituted, deleted, inserted = counts.sum(axis=0).astype(int).tolist()
    errors = substituted + deleted + inserted
    return TranscriptScores(
        clips=len(counts),
        without_transcript=without_transcript,
        tokens=tokens,
        substituted=substituted,
        deleted=deleted,
        inserted=inserted,
        error_rate=_rate(errors, tokens, counts),
    )


def _rate(errors: int, tokens: int, counts: NDArray[np.float64]) -> Rate:
    """The error rate of clips with an interval by bootstrap over them.

    Without errors all draws are alike, and the interval is Wilson's for a share of the tokens.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if not tokens:
        return Rate(np.nan, np.nan, np.nan)
    if not errors:
        wilson = binomtest(0, tokens).proportion_ci(method="wilson")
        return Rate(0.0, 0.0, float(wilson.high))
    draws = resampled_sums(np.stack([counts[:, 1:].sum(axis=1), counts[:, 0]], axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(draws[:, 1] > 0, draws[:, 0] / draws[:, 1], np.nan)
    return Rate(errors / tokens, *interval(rates))


def _counts(text: str | None, reference: Reference) -> tuple[int, int, int, int]:
    """Tokens that were said, and those substituted, deleted and inserted."""
    by_character = reference.language_code in BY_CHARACTER
    said, heard = tokens(reference.text, by_character), tokens(text or "", by_character)
    kinds = [edit.tag for edit in Levenshtein.editops(said, heard)]
    return len(said), kinds.count("replace"), kinds.count("delete"), kinds.count("insert")


def tokens(text: str, by_character: bool) -> list[str]:
    """The words, or the letters and digits, of a normalized text.

    >>> tokens("Don't pay 1,000 for it!", by_character=False)
    ['dont', 'pay', '1000', 'for', 'it']
    >>> tokens("买一送一，ＯＫ", by_character=True)
    ['买', '一', '送', '一', 'o', 'k']
    """
    normalized = REMOVED.sub("", unicodedata.normalize("NFKC", text).casefold())
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in normalized).split()
    return list("".join(words)) if by_character else words
