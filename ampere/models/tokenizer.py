"""A BERT WordPiece tokenizer trained on the catalog, for models without a pretrained text tower.

Letters: B texts, L tokens.
"""

import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ampere.text.characters import common_characters

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNKNOWN = SPECIAL_TOKENS["unk_token"]
# ASCII as BERT's normalizer and pre-tokenizer leave it: lower case, without spaces.
WORD_CHARACTERS = string.ascii_lowercase + string.digits
ALPHABET = WORD_CHARACTERS + string.punctuation


def build_tokenizer(texts: Iterable[str], vocab_size: int = 8000) -> PreTrainedTokenizerFast:
    """Train a tokenizer that always knows the common Chinese characters and ASCII.

    A brand that is not in the training texts then consists of known tokens: each Chinese character
    is a token as in BERT, and an unknown Latin word is split into letters.

    Args:
        texts: the training texts.
        vocab_size: maximum number of tokens.

    Raises:
        ValueError: `vocab_size` is smaller than the alphabet.
    """
    texts = list(texts)
    alphabet = sorted(set(common_characters() + ALPHABET))
    # The trainer numbers `##` characters in an order that changes from run to run, and breaks ties
    # by number. Listed first, like special tokens, they keep their numbers, so equal texts give
    # equal tokenizers.
    first = [*SPECIAL_TOKENS.values(), *_inner_characters(texts)]
    if vocab_size < len(first) + len(alphabet):
        raise ValueError(
            f"vocab_size is {vocab_size}; expected at least {len(first) + len(alphabet)}, the size "
            "of the alphabet"
        )
    trained = _pipeline(models.WordPiece(unk_token=UNKNOWN))
    trained.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=first,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer = _pipeline(models.WordPiece(vocab=trained.get_vocab(), unk_token=UNKNOWN))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """Load the tokenizer that was saved beside a model."""
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | None],
    max_tokens: int,
    *,
    pad_to_max: bool = False,
) -> tuple[Tensor, Tensor]:
    """Tokenize a batch: CLS first, truncated to `max_tokens`, padded to the batch's longest text.

    Args:
        texts: None is a missing text; the empty string is a text without words.
        max_tokens: maximum L, with CLS and SEP; 33 in the paper.
        pad_to_max: pad to `max_tokens`, so that every batch has the same shape.

    Returns:
        Token ids, int64 [B, L], and mask, int64 [B, L]: 0 at padding, and 0 in the whole row of a
        missing text.

    Raises:
        ValueError: `texts` is empty.
    """
    if not texts:
        raise ValueError("texts is empty; pass at least one")
    batch = tokenizer(
        [text or "" for text in texts],
        truncation=True,
        max_length=max_tokens,
        padding="max_length" if pad_to_max else "longest",
        return_tensors="pt",
    )
    given = torch.tensor([[text is not None] for text in texts])
    return batch["input_ids"].to(torch.int64), batch["attention_mask"].to(torch.int64) * given


def _pipeline(model: models.WordPiece) -> Tokenizer:
    """BERT's steps around a model: lower case, no accents, Chinese characters split off."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _inner_characters(texts: list[str]) -> list[str]:
    """`##x` for every character x that may follow the first of a word.

    These are Latin letters, digits and the inner characters of the texts' words.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    inner = set(WORD_CHARACTERS)
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            inner.update(word[1:])
    return [f"##{character}" for character in sorted(inner)]
