"""KeyBERT: the five phrases of a transcript that are most like the whole of it (the paper's table V, row KeyBERT)."""

from typing import Any

import jieba
from keybert import KeyBERT
from sklearn.feature_extraction.text import CountVectorizer
from transformers import pipeline

from ampere.text.clean import clean
from ampere.text.language import language_of
from ampere.text.summary import Status

KEYWORDS = 5
LONGEST_PHRASE = 2  # words


class Keywords:
    """Transcripts to columns of the summaries table; the keywords stand in order of likeness as features.

    KeyBERT has no notion of which keyword is the name, so `product_name` is None.

    Args:
        encoder: hub name or folder of an encoder, whose mean feature stands for a text.
        device: torch's name of it.
    """

    def __init__(self, encoder: str, device: str) -> None:
        features = pipeline(
            "feature-extraction", model=encoder, device=device, tokenize_kwargs={"truncation": True}
        )
        # Not every tokenizer knows how much its model can read.
        longest = features.model.config.max_position_embeddings
        features.tokenizer.model_max_length = min(features.tokenizer.model_max_length, longest)
        self.model = KeyBERT(features)

    def __call__(self, transcript: str) -> dict[str, Any]:
        text = clean(transcript)
        words = CountVectorizer(
            tokenizer=_words, token_pattern=None, ngram_range=(1, LONGEST_PHRASE)
        )
        try:
            found = self.model.extract_keywords(text, vectorizer=words, top_n=KEYWORDS)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            found = []  # nothing but marks and single characters
        phrases = [_joined(phrase) for phrase, _ in found]
        return {
            "product_name": None,
            "product_features": phrases,
            "text": " ".join(phrases) or None,
            "status": Status.OK if phrases else Status.EMPTY,
            "language": language_of(text),
        }


def _words(text: str) -> list[str]:
    """Words of a Chinese or mixed text, without marks and without single Chinese characters, which are particles."""
    return [word for word in jieba.cut(text) if len(word) > 1 and word.isalnum()]


def _joined(phrase: str) -> str:
    """The words of a phrase as they are written: Chinese without spaces."""
    return phrase if phrase.isascii() else phrase.replace(" ", "")
