"""Small encoders of random weights, with a tokenizer of the characters that tests use."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, ErnieConfig, PreTrainedTokenizerFast

from ampere.text.characters import common_characters
from ampere.text.uie import UIE

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}


def write_tokenizer(folder: Path) -> int:
    """Write a tokenizer with one token per character, and return the vocabulary's size."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789，。"
    vocab = {token: index for index, token in enumerate([*SPECIAL, *common_characters(), *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(folder)
    return len(vocab)


def write_bert(folder: Path) -> Path:
    """Write a BERT with the same random weights each time."""
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=write_tokenizer(folder), **SIZES)).save_pretrained(folder)
    return folder


def write_ernie_config(folder: Path) -> ErnieConfig:
    """Write the config and the tokenizer of an ERNIE."""
    config = ErnieConfig(vocab_size=write_tokenizer(folder), **SIZES)
    config.save_pretrained(folder)
    return config


def write_uie(folder: Path, *, prefix: str = "encoder.", without: str = "") -> Path:
    """Write a UIE model.

    Args:
        folder: of the model.
        prefix: of the names of the encoder's weights.
        without: a weight to leave out.
    """
    torch.manual_seed(0)
    weights = UIE(write_ernie_config(folder)).state_dict()
    weights.pop(without, None)
    renamed = {
        name.replace("encoder.", prefix, 1): value.clone() for name, value in weights.items()
    }
    save_file(renamed, folder / "model.safetensors")
    return folder
