"""KeyBERT: the phrases most similar to their transcript (the paper's table V, row KeyBERT)."""

from typing import Any

import jieba
from keybert import KeyBERT
from sklearn.feature_extraction.text import CountVectorizer
from transformers import pipeline

from ampere.text.clean import clean
from ampere.text.language import language_of
from ampere.text.summary import Status

NUM_KEYWORDS = 5
MAX_WORDS = 2  # per keyword


class Keywords:
    """Transcripts to columns of the summaries table.

    The features are the keywords, the most similar first. KeyBERT does not know which keyword is
    the name, so `product_name` is None.

    Args:
        encoder: hub name or folder of an encoder, whose mean feature represents a text.
        device: by torch's name.
    """

    def __init__(self, encoder: str, device: str) -> None:
        features = pipeline(
            "feature-extraction", model=encoder, device=device, tokenize_kwargs={"truncation": True}
        )
        # Not every tokenizer knows the maximum length of its model.
        longest = features.model.config.max_position_embeddings
        features.tokenizer.model_max_length = min(features.tokenizer.model_max_length, longest)
        self.model = KeyBERT(features)

    def __call__(self, transcript: str) -> dict[str, Any]:
        """The columns of one transcript."""
        text = clean(transcript)
        words = CountVectorizer(tokenizer=_words, token_pattern=None, ngram_range=(1, MAX_WORDS))
        try:
            keywords = self.model.extract_keywords(text, vectorizer=words, top_n=NUM_KEYWORDS)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            keywords = []  # the text is only punctuation and single characters
        phrases = [_joined(phrase) for phrase, _ in keywords]
        return {
            "product_name": None,
            "product_features": phrases,
            "text": " ".join(phrases) or None,
            "status": Status.OK if phrases else Status.EMPTY,
            "language": language_of(text),
        }


def _words(text: str) -> list[str]:
    """Words of a Chinese or mixed text, without punctuation and single characters (particles)."""
    return [word for word in jieba.cut(text) if len(word) > 1 and word.isalnum()]


def _joined(phrase: str) -> str:
    """A phrase as it is written: Chinese without spaces between the words."""
    return phrase if phrase.isascii() else phrase.replace(" ", "")
