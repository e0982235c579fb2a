"""Small Baichuan 2 models of random weights in the published format, and a network in plain torch.

Letters: N tokens, D width, H heads, V vocabulary.
"""

import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import xgrammar
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ampere.text.baichuan.tokenizer import MARKS
from ampere.text.summary import NO_PRODUCT, SCHEMA

# As in the config.json of Baichuan2-7B-Chat and Baichuan2-13B-Chat. Only the first has
# `max_position_embeddings`. Three heads: like the 40 of the 13B model, no power of two.
CONFIG = {
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_baichuan.BaichuanConfig",
        "AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM",
    },
    "tokenizer_class": "BaichuanTokenizer",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "intermediate_size": 80,
    "model_max_length": 4096,
    "model_type": "baichuan",
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
}
SIZES: dict[str, dict[str, int]] = {
    "7B": {"hidden_size": 64, "num_attention_heads": 2, "max_position_embeddings": 4096},
    "13B": {"hidden_size": 96, "num_attention_heads": 3},
}
TOKEN = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False}
TOKENIZER_CONFIG = {
    "add_bos_token": False,
    "add_eos_token": False,
    "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]},
    "bos_token": TOKEN | {"content": "<s>", "single_word": True},
    "eos_token": TOKEN | {"content": "</s>", "single_word": True},
    "model_max_length": 4096,
    "pad_token": TOKEN | {"content": "<unk>", "single_word": True},
    "tokenizer_class": "BaichuanTokenizer",
    "unk_token": TOKEN | {"content": "<unk>", "single_word": True},
}
TEXTS = [
    NO_PRODUCT.to_json(),
    '{"is_product":true,"product_name":"松石牙刷","product_features":["软毛","防水"]}',
    "家人们看过来，这款松石牙刷，不伤牙龈，软毛防水，今天只要 29.9 元",
    "The   brush of  2026 costs 1234 yuan, and its bristles are soft.",
]


def write_baichuan(folder: Path, size: str, *, seed: int = 0, quote_logit: float = 0.0) -> Path:
    """Write a small model with the files of a published one, and return the folder.

    Args:
        folder: to create.
        size: `7B` or `13B`, of the model that it is like.
        seed: of the weights.
        quote_logit: if not 0, how much larger than others the logits of tokens with a quotation
            mark are, so that JSON strings end after a few tokens.
    """
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    config = CONFIG | SIZES[size] | {"vocab_size": len(vocabulary)}
    (folder / "config.json").write_text(json.dumps(config))
    weights = random_weights(config, seed)
    if quote_logit:
        pieces = (vocabulary.id_to_piece(i) for i in range(len(vocabulary)))
        favor(weights, [i for i, piece in enumerate(pieces) if '"' in piece], quote_logit)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def sentencepiece_model(texts: list[str] = TEXTS, vocab_size: int = 420) -> bytes:
    """A SentencePiece model with the options that Baichuan 2's technical report names.

    Byte pairs, no normalization, no space before the text, single digits, runs of spaces, bytes
    for rare characters.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        user_defined_symbols=[*MARKS, "▁▁", "▁▁▁"],
        minloglevel=2,
    )
    return model.getvalue()


def random_weights(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Weights under the names of the published files.

    They are large enough that attention is far from uniform, and no two norms are alike.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    width, inner = config["hidden_size"], config["intermediate_size"]
    weights = {
        "model.embed_tokens.weight": draw(config["vocab_size"], width),
        "model.norm.weight": 1 + draw(width) / 4,
        "lm_head.weight": draw(config["vocab_size"], width),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.self_attn.W_pack.weight": 2 * draw(3 * width, width) / math.sqrt(width),
            f"{prefix}.self_attn.o_proj.weight": draw(width, width) / math.sqrt(width),
            f"{prefix}.self_attn.rotary_emb.inv_freq": torch.ones(16),  # in some files; not read
            f"{prefix}.mlp.gate_proj.weight": draw(inner, width) / math.sqrt(width),
            f"{prefix}.mlp.up_proj.weight": draw(inner, width) / math.sqrt(width),
            f"{prefix}.mlp.down_proj.weight": draw(width, inner) / math.sqrt(inner),
            f"{prefix}.input_layernorm.weight": 1 + draw(width) / 4,
            f"{prefix}.post_attention_layernorm.weight": 1 + draw(width) / 4,
        }
    return weights


def favor(weights: dict[str, Tensor], tokens: list[int], logit: float) -> None:
    """Reserve the first two features for these tokens: they are the same at each position.

    Each of the tokens has a direction of its own between the two. Equal logits would tie, and how
    ties are broken depends on the processor.
    """
    weights["model.embed_tokens.weight"][:, :2] = 1
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[:2] = 0
    weights["model.norm.weight"][:2] = logit
    weights["lm_head.weight"][:, :2] = 0
    weights["lm_head.weight"][tokens] = 0
    angles = torch.linspace(0, 0.5, len(tokens))
    weights["lm_head.weight"][tokens, 0] = angles.cos()
    weights["lm_head.weight"][tokens, 1] = angles.sin()


def reference_logits(
    config: dict[str, Any], weights: dict[str, Tensor], tokens: list[int]
) -> Tensor:
    """What a Baichuan 2 answers, after Baichuan's own code, for each position: [N, V]."""
    x = weights["model.embed_tokens.weight"][tokens]
    norm = partial(functional.rms_norm, normalized_shape=x.shape[1:], eps=config["rms_norm_eps"])
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        normed = norm(x, weight=weights[f"{prefix}.input_layernorm.weight"])
        packed = normed @ weights[f"{prefix}.self_attn.W_pack.weight"].T
        x = x + attend(config, packed) @ weights[f"{prefix}.self_attn.o_proj.weight"].T
        normed = norm(x, weight=weights[f"{prefix}.post_attention_layernorm.weight"])
        gate = functional.silu(normed @ weights[f"{prefix}.mlp.gate_proj.weight"].T)
        up = normed @ weights[f"{prefix}.mlp.up_proj.weight"].T
        x = x + (gate * up) @ weights[f"{prefix}.mlp.down_proj.weight"].T
    head = weights["lm_head.weight"]
    return norm(x, weight=weights["model.norm.weight"]) @ (head / head.norm(dim=1, keepdim=True)).T


def reference_answer(folder: Path, tokenizer: Any, prompt: list[int]) -> str:
    """The greedy answer under the grammar of a summary."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    info = xgrammar.TokenizerInfo.from_huggingface(
        tokenizer, vocab_size=config["vocab_size"], stop_token_ids=[config["eos_token_id"]]
    )
    grammar = xgrammar.GrammarCompiler(info).compile_json_schema(
        json.dumps(SCHEMA), any_whitespace=False, separators=(",", ":")
    )
    matcher, tokens = xgrammar.GrammarMatcher(grammar), list(prompt)
    mask = xgrammar.allocate_token_bitmask(1, config["vocab_size"])
    while not matcher.is_terminated():
        logits = reference_logits(config, weights, tokens)[-1:]
        matcher.fill_next_token_bitmask(mask)
        xgrammar.apply_token_bitmask_inplace(logits, mask)
        tokens.append(int(logits.argmax()))
        assert matcher.accept_token(tokens[-1])
    return tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True)


def attend(config: dict[str, Any], packed: Tensor) -> Tensor:
    """Causal attention of packed queries, keys and values, [N, 3D] to [N, D]."""
    heads, length = config["num_attention_heads"], len(packed)
    # [3, H, N, D / H]
    q, k, v = packed.view(length, 3, heads, -1).permute(1, 2, 0, 3)
    positions = torch.arange(length)
    bias = torch.full((length, length), -math.inf).triu(1)
    if "max_position_embeddings" in config:
        q, k = rotate(q, positions), rotate(k, positions)
    else:
        slopes = torch.tensor(interleaved_slopes(heads)).view(heads, 1, 1)
        bias = bias + slopes * positions  # as published: by the key's position
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + bias
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate the two halves of each head by its position: [H, N, D / H]."""
    half = x.shape[-1] // 2
    angles = torch.outer(positions, 10_000.0 ** (-torch.arange(half) / half))
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def interleaved_slopes(heads: int) -> list[float]:
    """The slopes of ALiBi as the 13B model's code defines them, by recursion."""
    if math.log2(heads).is_integer():
        start = 2 ** -(2 ** -(math.log2(heads) - 3))
        return [start ** (i + 1) for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    more = interleaved_slopes(2 * below)[::2][: heads - below]
    return interleaved_slopes(below) + more
