"""The model card: README.md of a model folder, for people and for model hubs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.base import Network
from ampere.models.cn_clip import CNCLIP
from ampere.models.mllm import MLLMEmbedder
from ampere.models.sentence_embedder import SentenceEmbedder

CARD_FILE = "README.md"
PREFIX = "a page's title; of a clip, "
TEXTS = {
    "llm": f"{PREFIX}product name and features that a language model extracted from its speech",
    "llm-name": f"{PREFIX}the product name that a language model extracted from its speech",
    "llm-features": f"{PREFIX}the product features that a language model extracted from its speech",
    "keybert": f"{PREFIX}key words of its speech (KeyBERT)",
    "uie": f"{PREFIX}product attributes in its speech (UIE)",
    "raw": f"{PREFIX}the raw transcript of its speech",
}

INTRODUCTION = """# AMPere product embeddings

One network that embeds product pages, short videos and live-stream clips into one vector space,
where nearest neighbors show the same product (ASR-enhanced multimodal product representation
learning, arXiv 2408.02978).
"""

LOADING = """## Loading

```python
from ampere.models.ampere import AMPere
model = AMPere.from_pretrained("path/of/this/folder")
```

`help(model.forward)` documents its inputs; `ampere.models.embedder.Embedder` also reads JPEG frames
and plain text.
"""


def write_model_card(
    folder: Path | str, network: Network, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the card of any network into its model folder.

    Args:
        facts: as for `model_card`.
    """
    name = type(network).__name__
    if isinstance(network, AMPere):
        parameters = sum(weight.numel() for weight in network.parameters())
        card = model_card(network.config, parameters, facts)
    elif isinstance(network, CNCLIP):
        card = comparison_card(name, {"Combination": network.config.combine}, facts)
    elif isinstance(network, MLLMEmbedder):
        card = comparison_card(name, {"Language model": network.config.source}, facts)
    elif isinstance(network, SentenceEmbedder):
        card = comparison_card(name, {"Embedder": network.config.source}, facts)
    else:
        raise TypeError(f"no model card for {name}; add one to {__name__}")
    card.save(Path(folder) / CARD_FILE)


def model_card(
    config: AMPereConfig, parameters: int, facts: Mapping[str, Any] | None = None
) -> ModelCard:
    """The card of an AMPere model.

    Args:
        config: of the model.
        parameters: number of its parameters.
        facts: further rows of the card, name to a number, text or JSON-like value. `text` is read
            as a `TextSource` and described in words.
    """
    sizes, facts = config.sizes, dict(facts or {})
    rows = {
        "Parameters": f"{parameters / 1e6:.1f} M ({parameters:,})",
        "Embedding": _embedding(sizes),
        "Frames": _frames(sizes),
        "Frame tower": _frame_tower(config),
        "Text": _text(config, facts.pop("text", None)),
        "Text tower": _text_tower(config),
        "Fusion": _fusion(config),
        **_fact_rows(facts),
    }
    tags = ["ampere", "product-retrieval", "embeddings"]
    tags += ["video", *_vision_tag(config)] if sizes.use_vision else []
    tags += ["text", *([] if config.text_encoder else ["bert"])] if config.use_text else []
    return _card(f"{INTRODUCTION}\n{_table(rows)}\n{LOADING}", tags=tags)


def comparison_card(
    network: str, about: Mapping[str, str], facts: Mapping[str, Any] | None = None
) -> ModelCard:
    """The card of a network that AMPere is compared with.

    Args:
        network: name of its class.
        about: rows of the card that only this network has.
        facts: as for `model_card`.
    """
    facts = dict(facts or {})
    text = facts.pop("text", None)
    rows = {name: _source(value) for name, value in about.items()}
    rows |= {"Text": TEXTS.get(text, "none is read")} if text else {}
    rows |= _fact_rows(facts)
    introduction = "A system that AMPere is compared with (arXiv 2408.02978, section IV-B)."
    return _card(f"# {network} as product embeddings\n\n{introduction}\n\n{_table(rows)}")


def _card(body: str, tags: list[str] | None = None) -> ModelCard:
    """The text of a card under the front matter that model hubs read."""
    data = ModelCardData(library_name="ampere", pipeline_tag="feature-extraction", tags=tags)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _table(rows: Mapping[str, str]) -> str:
    lines = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    return f"| | |\n|---|---|\n{lines}"


def _fact_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """`{"training_products": 400}` gives `{"Training products": "400"}`."""
    return {str(name).replace("_", " ").capitalize(): _cell(value) for name, value in facts.items()}


def _embedding(sizes: ModelSettings) -> str:
    last = "one last layer for all domains" if sizes.share_last_layer else "a last layer per domain"
    return f"{sizes.embedding_dim} numbers of float32, length 1, compared by dot product; {last}"


def _frames(sizes: ModelSettings) -> str:
    if not sizes.use_vision:
        return "none are read"
    return f"{sizes.num_frames} of a clip, 1 of a page; {sizes.image_size} x {sizes.image_size} RGB"


def _vision_tag(config: AMPereConfig) -> list[str]:
    """The tag of a card for its vision tower, if it has one."""
    if config.image_encoder is not None:
        return []
    return [EFFICIENTNET if config.sizes.vision_weights == EFFICIENTNET else "x-clip"]


def _frame_tower(config: AMPereConfig) -> str:
    sizes = config.sizes
    if not sizes.use_vision:
        return "none"
    if config.image_encoder is not None:
        tower = f"{config.image_encoder.fields['model_type']}, {_origin(sizes.vision_weights)}"
    elif sizes.vision_weights == EFFICIENTNET:
        tower = "EfficientNet-Lite0, started from ImageNet weights"
    else:
        layers = f"{sizes.vision_layers} layers of width {sizes.vision_width}"
        tower = f"X-CLIP, {layers}, patches of {sizes.patch_size}, {_origin(sizes.vision_weights)}"
    frozen = ", frozen" if sizes.freeze_vision else ""
    blocks = f"then {sizes.temporal_layers} blocks of width {sizes.width} over the frames"
    return f"{tower}{frozen}; {blocks}"


def _text(config: AMPereConfig, source: str | None) -> str:
    if not config.use_text:
        return "none is read"
    text = "read" if source is None else TEXTS.get(source, _cell(source))
    limit = f"at most {config.sizes.max_text_tokens} tokens"
    return f"{text}; {limit} of a vocabulary of {config.vocab_size:,}"


def _text_tower(config: AMPereConfig) -> str:
    sizes = config.sizes
    if not config.use_text:
        return "none"
    frozen = ", frozen" if sizes.freeze_text else ""
    if config.text_encoder is not None:
        return f"{config.text_encoder['model_type']}, {_origin(sizes.text_weights)}{frozen}"
    layers = f"{sizes.text_layers} layers of width {sizes.text_width}"
    return f"BERT, {layers}, {_origin(sizes.text_weights)}{frozen}"


def _fusion(config: AMPereConfig) -> str:
    sizes = config.sizes
    if not (config.use_text and sizes.use_vision):
        return "none"
    has_blocks = sizes.fusion not in ("sum", "cat")
    layers = f"{sizes.fusion_layers} layers of width {sizes.width}" if has_blocks else "no layers"
    return f"`{sizes.fusion}`, {layers}"


def _origin(weights: str) -> str:
    """Which weights a tower started from."""
    return f"started from {_source(weights)}" if weights else "from no pretrained weights"


def _source(weights: str) -> str:
    """A hub name; of an absolute path only the last part, since cards may be published."""
    return _cell(Path(weights).name if Path(weights).is_absolute() else weights)


def _cell(value: Any) -> str:
    """A value as the text of a Markdown table cell: one line, bars escaped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split()).replace("|", "\\|")
