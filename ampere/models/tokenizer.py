"""A BERT WordPiece tokenizer of the training texts, for models that start from no pretrained text tower."""

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

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                  "mask_token": "[MASK]"}  # fmt: skip
UNKNOWN = SPECIAL_TOKENS["unk_token"]
# What any text may hold, as BERT's normaliser leaves it: lower case, without spaces.
WORD_CHARACTERS = string.ascii_lowercase + string.digits
ALPHABET = WORD_CHARACTERS + string.punctuation


def build_tokenizer(texts: Iterable[str], vocab_size: int = 8000) -> PreTrainedTokenizerFast:
    """Train a tokenizer whose alphabet holds the common Chinese characters and ASCII, whatever the texts hold.

    So the characters of a brand never seen in training are still known, each Chinese character by itself as in BERT,
    and a word of unseen Latin letters falls apart into letters.

    Args:
        texts: the training texts.
        vocab_size: largest number of tokens.

    Raises:
        ValueError: `vocab_size` does not hold the alphabet.
    """
    texts = list(texts)
    alphabet = sorted(set(common_characters() + ALPHABET))
    # The trainer numbers `##` characters in an order that changes from run to run, and breaks ties by number; named
    # first, like special tokens, they keep their place. So equal texts give an equal tokenizer.
    first = [*SPECIAL_TOKENS.values(), *_inner_characters(texts)]
    if vocab_size < len(first) + len(alphabet):
        raise ValueError(
            f"vocab_size is {vocab_size}; the alphabet alone needs {len(first) + len(alphabet)}"
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
    """The tokenizer that was saved beside a model."""
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | None],
    max_tokens: int,
    *,
    fixed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Tokenize a batch: CLS first, cut to `max_tokens` with CLS and SEP, padded to the longest of the batch.

    Args:
        texts: None is a missing text; the empty string is a text of no words.
        max_tokens: L at most; 33 in the paper.
        fixed: pad to `max_tokens`, so that every batch has the same shape.

    Returns:
        ids: int64 [B, L]; mask: int64 [B, L], 0 at padding, and 0 everywhere where the text is missing.

    Raises:
        ValueError: `texts` is empty.
    """
    if not texts:
        raise ValueError("texts is empty; give at least one")
    batch = tokenizer(
        [text or "" for text in texts],
        truncation=True,
        max_length=max_tokens,
        padding="max_length" if fixed else "longest",
        return_tensors="pt",
    )
    given = torch.tensor([[text is not None] for text in texts])
    return batch["input_ids"].to(torch.int64), batch["attention_mask"].to(torch.int64) * given


def _pipeline(model: models.WordPiece) -> Tokenizer:
    """BERT's way from a text to words: lower case, no accents, each Chinese character and punctuation mark alone."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _inner_characters(texts: list[str]) -> list[str]:
    """`##x` for every character x that a word may hold after its first: Latin letters, digits, those of the texts."""
    normalizer, splitter = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    inner = set(WORD_CHARACTERS)
    for text in texts:
        inner.update(
            *(word[1:] for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        )
    return [f"##{character}" for character in sorted(inner)]
