"""Small networks and inputs for tests."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ampere.models.mllm import PROMPT, PROMPT_END, PROMPT_TEXT
from ampere.models.tokenizer import build_tokenizer

VOCAB_SIZE = 60


def random_frames(batch: int, num_frames: int, seed: int = 0) -> Tensor:
    """Frames, uint8 [batch, num_frames, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (batch, num_frames, 3, 32, 32), dtype=torch.uint8, generator=generator
    )


def random_tokens(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Token ids and a mask without padding, int64 [batch, length]."""
    ids = torch.randint(5, VOCAB_SIZE, (batch, length), generator=torch.Generator().manual_seed(1))
    return ids, torch.ones_like(ids)


def outputs_of(*layers: nn.Module) -> list[Tensor]:
    """A list that gets what the layers return, from now on."""
    outputs: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    return outputs


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Apply a function to the named weights of a model folder, and save them again."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def tiny_clip_config() -> ChineseCLIPConfig:
    """A Chinese-CLIP of few weights."""
    text = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 16, "intermediate_size": 20,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 20,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 30, "num_hidden_layers": 2,
        "num_attention_heads": 3, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    return ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=12)


def save_tiny_clip(folder: Path) -> None:
    """Save a tiny Chinese-CLIP and its tokenizer in the hub's layout."""
    config, tokenizer = tiny_clip_config(), build_tokenizer(["product 1"], vocab_size=5000)
    config.text_config.vocab_size = len(tokenizer)
    # No dropout: a batch in chunks would draw other dropout than the whole batch.
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    ChineseCLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


SPECIAL_TOKENS = [
    "<pad>",
    "<unk>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
]


TEMPLATE = (
    "{% for message in messages %}问{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}答{% endif %}"
)


def tiny_tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character."""
    characters = sorted(set("".join([PROMPT, PROMPT_TEXT, PROMPT_END, "问答\n 云杉牌电动牙刷"])))
    words = models.WordLevel(
        {token: i for i, token in enumerate(SPECIAL_TOKENS + characters)}, unk_token="<unk>"
    )
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", padding_side=padding_side
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS[2:]})
    return fast


def tiny_parts(
    tokenizer: PreTrainedTokenizerFast, *, tied: bool = False
) -> tuple[LlamaConfig, dict[str, int]]:
    """Configs of a tiny language model and of a vision tower.

    The language model has dropout, so that training mode would change its features.

    Args:
        tied: the language model's output layer shares its word embeddings' weights.
    """
    language = LlamaConfig(
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        pad_token_id=0,
        attention_dropout=0.5,
        tie_word_embeddings=tied,
    )
    vision = {
        "hidden_size": 24, "intermediate_size": 30, "num_hidden_layers": 2,
        "num_attention_heads": 3, "image_size": 32,
    }  # fmt: skip
    return language, vision


def llava(
    padding_side: str = "left", *, tied: bool = False
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A tiny LLaVA and its processor."""
    tokenizer = tiny_tokenizer(padding_side)
    language, vision = tiny_parts(tokenizer, tied=tied)
    torch.manual_seed(0)
    base = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**vision, patch_size=16),
            text_config=language,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=4,
            tie_word_embeddings=tied,
        )
    )
    return base, LlavaProcessor(
        LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
