import string

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ampere.models.tokenizer import build_tokenizer, encode
from ampere.text.characters import common_characters

TEXTS = ["云杉牌电动牙刷 声波震动", "云杉电动牙刷 shampoo 500ml", "shampoo 500ml"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(TEXTS)


def test_every_common_character_is_known(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, mask = encode(tokenizer, [common_characters()], max_tokens=10_000)
    assert ids.shape == (1, 3755 + 2) and mask.all()
    assert tokenizer.unk_token_id not in ids


def test_unseen_ascii_words_are_known(tokenizer: PreTrainedTokenizerFast) -> None:
    printable = string.ascii_letters + string.digits + string.punctuation
    ids, _ = encode(tokenizer, [printable + " Zxq9w"], max_tokens=500)
    assert tokenizer.unk_token_id not in ids


def test_chinese_is_split_and_latin_words_merge(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("电动牙刷Shampoo") == ["电", "动", "牙", "刷", "shampoo"]
    assert tokenizer.tokenize("骉") == ["[UNK]"]  # a rare character that is in no text


def test_encode_pads_truncates_and_masks_missing_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, mask = encode(tokenizer, ["电动", None, "", "电动牙刷声波震动"], max_tokens=6)
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    assert ids.dtype == mask.dtype == torch.int64
    assert mask.sum(dim=1).tolist() == [4, 0, 2, 6]
    assert ids[1].tolist() == ids[2].tolist() == [cls, sep, pad, pad, pad, pad]
    assert ids[3, 0] == cls and ids[3, -1] == sep
    assert encode(tokenizer, ["电动"], max_tokens=6)[0].shape == (1, 4)


def test_vocabulary_is_bounded_and_reproducible() -> None:
    """With many words of equal frequency, which do not all fit."""
    words = [f"{a}{b}{c} かな" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"]
    vocabulary = build_tokenizer(words, vocab_size=4000).get_vocab()
    assert len(vocabulary) == 4000
    assert all(build_tokenizer(words, vocab_size=4000).get_vocab() == vocabulary for _ in range(3))


def test_vocab_size_below_alphabet_raises() -> None:
    with pytest.raises(ValueError, match="vocab_size is 3000"):
        build_tokenizer(TEXTS, vocab_size=3000)


def test_empty_batch_raises(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="texts is empty"):
        encode(tokenizer, [], max_tokens=6)
