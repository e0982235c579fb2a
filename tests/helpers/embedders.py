"""Off-the-shelf embedders of random weights, saved in the hub's layout."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    EmbeddingGemma2Config,
    EmbeddingGemma2Model,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Siglip2Config,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip import CLIPImageProcessorPil
from transformers.models.gemma4 import Gemma4ImageProcessorPil
from transformers.models.qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip import SiglipImageProcessorPil
from transformers.models.siglip2 import Siglip2ImageProcessorPil

from ampere.models.tokenizer import SPECIAL_TOKENS, build_tokenizer

WIDTH = 24
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": 20, "num_attention_heads": 2,
    "max_position_embeddings": 20, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": WIDTH, "intermediate_size": 30, "num_hidden_layers": 1,
    "num_attention_heads": 3, "patch_size": 16,
}  # fmt: skip


def save_embedder(family: str, folder: Path) -> Path:
    """Save a tiny model of a family of `FAMILIES`, and return its folder."""
    torch.manual_seed(0)
    FAMILIES[family](folder)
    return folder


def save_siglip(folder: Path) -> None:
    """Of the class of google/siglip2-base-patch16-224, which is SigLIP's."""
    tokenizer = tiny_tokenizer()
    text = SIZES | {"vocab_size": len(tokenizer), "num_hidden_layers": 1, "projection_size": WIDTH}
    vision = VISION | {"image_size": 32}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    SiglipProcessor(images, tokenizer).save_pretrained(folder)


def save_siglip2(folder: Path) -> None:
    """Of the class of google/siglip2-base-patch16-naflex, for pictures of any aspect."""
    tokenizer = tiny_tokenizer()
    text = SIZES | {"vocab_size": len(tokenizer), "num_hidden_layers": 1, "projection_size": WIDTH}
    vision = VISION | {"num_patches": 16}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).save_pretrained(folder)
    Siglip2Processor(Siglip2ImageProcessorPil(max_num_patches=16), tokenizer).save_pretrained(
        folder
    )


def save_clip(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    text = SIZES | {"vocab_size": len(tokenizer), "num_hidden_layers": 1, "eos_token_id": 2}
    vision = VISION | {"image_size": 32}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


GEMMA_TOKENS = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}


def save_embedding_gemma(folder: Path) -> None:
    """Of the class of google/embeddinggemma-2, which pools the mean of all tokens."""
    tokenizer = tiny_tokenizer(4000, **GEMMA_TOKENS)
    text = SIZES | {
        "vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_key_value_heads": 1,
        "head_dim": 8, "global_head_dim": 8, "num_global_key_value_heads": 1, "hidden_size": 16,
        "sliding_window": 16, "hidden_size_per_layer_input": 8, "embedding_dim": WIDTH,
        "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 4000,
    }  # fmt: skip
    vision = {
        "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 20, "head_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "position_embedding_size": 64,
    }  # fmt: skip
    config = EmbeddingGemma2Config(
        text_config=text,
        vision_config=vision,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(t) for name, t in GEMMA_TOKENS.items()},
        video_token_id=-1,
        audio_token_id=-1,
    )
    EmbeddingGemma2Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = _settings(Gemma4ImageProcessorPil(max_soft_tokens=70), "Gemma4ImageProcessor")
    video = {"video_processor_type": "EmbeddingGemma2VideoProcessor", "max_soft_tokens": 70}
    _write(
        folder / "processor_config.json",
        {"processor_class": "EmbeddingGemma2Processor", "image_processor": images}
        | {"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}}
        | {"video_processor": video},
    )
    _write_modules(folder, "mean", ["text", "image", "audio", "video"])


QWEN_TOKENS = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
}  # fmt: skip
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} answer{% endif %}"
)


def save_qwen3_vl_embedding(folder: Path) -> None:
    """Of the class of Qwen/Qwen3-VL-Embedding-2B, which pools the last token."""
    tokenizer = tiny_tokenizer(4000, **QWEN_TOKENS)
    rope = {
        "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    }  # fmt: skip
    text = SIZES | {
        "vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_key_value_heads": 1,
        "head_dim": 12, "rope_parameters": rope, "max_position_embeddings": 4000,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2,
        "out_hidden_size": WIDTH, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(t) for name, t in QWEN_TOKENS.items()}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(
        patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    processor = {"processor_class": "Qwen3VLProcessor"}
    _write(
        folder / "preprocessor_config.json",
        _settings(images, "Qwen2VLImageProcessorFast") | processor,
    )
    video = {"video_processor_type": "Qwen3VLVideoProcessor"}
    _write(folder / "video_preprocessor_config.json", video | processor)
    _write(folder / "chat_template.json", {"chat_template": QWEN_TEMPLATE})
    _write_modules(
        folder,
        "lasttoken",
        ["text", "image", "video", "message"],
        {"chat_template": {"add_generation_prompt": True}},
    )


FAMILIES: Mapping[str, Callable[[Path], None]] = {
    "siglip": save_siglip,
    "siglip2": save_siglip2,
    "clip": save_clip,
    "embedding-gemma": save_embedding_gemma,
    "qwen3-vl-embedding": save_qwen3_vl_embedding,
}


def tiny_tokenizer(max_tokens: int = 20, **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer with special tokens, by the names that processors look for."""
    tokenizer = build_tokenizer(["product 1"], vocab_size=5000)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=max_tokens,
        extra_special_tokens=special,
        **SPECIAL_TOKENS,
    )


def _write_modules(
    folder: Path, pooling: str, modalities: list[str], processing: dict[str, Any] | None = None
) -> None:
    """Write sentence-transformers' files: a transformer, pooling, and division by the length."""
    package = "sentence_transformers"
    types = {
        "": f"{package}.base.modules.transformer.Transformer",
        "1_Pooling": f"{package}.sentence_transformer.modules.pooling.Pooling",
        "2_Normalize": f"{package}.sentence_transformer.modules.normalize.Normalize",
    }
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(types.items())
    ]
    _write(folder / "modules.json", modules)
    _write(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": WIDTH, "pooling_mode": pooling, "include_prompt": True},
    )
    (folder / "2_Normalize").mkdir()
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    _write(
        folder / "sentence_bert_config.json",
        {"modality_config": dict.fromkeys(modalities, output)}
        | {"module_output_name": "token_embeddings", "processing_kwargs": processing or {}},
    )


def _settings(processor: Any, name: str) -> dict[str, Any]:
    """Settings of an image processor, as saved by the class that reads with torchvision."""
    return json.loads(processor.to_json_string()) | {"image_processor_type": name}


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
