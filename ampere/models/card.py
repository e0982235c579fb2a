"""The model card: the README.md of a model folder, for a person who finds the folder or reads it on a model hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampere.config.model import ModelSettings

if TYPE_CHECKING:  # ampere.py writes cards, so it imports this module
    from ampere.models.ampere import AMPereConfig

CARD_FILE = "README.md"
TEXTS = {
    "llm": "a page's title; of a clip, product name and features that a language model drew from its speech",
    "llm-name": "a page's title; of a clip, the product name that a language model drew from its speech",
    "llm-features": "a page's title; of a clip, the product features that a language model drew from its speech",
    "keybert": "a page's title; of a clip, key words of its speech (KeyBERT)",
    "uie": "a page's title; of a clip, product attributes in its speech (UIE)",
    "raw": "a page's title; of a clip, the raw transcript of its speech",
}


def model_card(config: AMPereConfig, parameters: int, facts: Mapping[str, Any] | None) -> str:
    """A model card in Markdown, with the front matter that model hubs read.

    Args:
        config: of the model.
        parameters: how many numbers it has learned.
        facts: what else is known, name to value; each is listed, numbers, text or JSON-like. `text` is read as a
            `TextSource` and told in words. None: nothing else is known.

    Returns:
        the text of a README.md; lines end in `\\n`.
    """
    sizes, facts = config.sizes, dict(facts or {})
    text = facts.pop("text", None)
    rows = {
        "Parameters": f"{parameters / 1e6:.1f} M ({parameters:,})",
        "Embedding": _embedding(sizes),
        "Frames": _frames(sizes),
        "Frame tower": _frame_tower(sizes),
        "Text": _text(config, text),
        "Text tower": _text_tower(config),
        "Fusion": _fusion(config),
        **{str(name).replace("_", " ").capitalize(): _cell(value) for name, value in facts.items()},
    }
    return f"{_front_matter(config)}\n{_TITLE}\n| | |\n|---|---|\n{_table(rows)}\n{_LOADING}"


def comparison_card(network: str, about: Mapping[str, Any], facts: Mapping[str, Any] | None) -> str:
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
    rows |= {
        str(name).replace("_", " ").capitalize(): _cell(value) for name, value in facts.items()
    }
    front = "---\nlibrary_name: ampere\npipeline_tag: feature-extraction\n---\n"
    about_it = "A system that AMPere is compared with (arXiv 2408.02978, section IV-B)."
    return f"{front}\n# {network} as product embeddings\n\n{about_it}\n\n| | |\n|---|---|\n{_table(rows)}"


def write_comparison_card(
    folder: Path | str, network: str, about: Mapping[str, Any], facts: Mapping[str, Any] | None
) -> None:
    """Write `comparison_card` into a model folder."""
    (Path(folder) / CARD_FILE).write_text(comparison_card(network, about, facts), encoding="utf-8")


def _table(rows: Mapping[str, str]) -> str:
    return "".join(f"| {name} | {value} |\n" for name, value in rows.items())


_TITLE = """# AMPere product embeddings

One network that puts product pages, short videos and live-stream clips into one vector space, where the nearest
vectors show the same product (ASR-enhanced multimodal product representation learning, arXiv 2408.02978).
"""

_LOADING = """## Loading

```python
from ampere.models.ampere import AMPere
model = AMPere.from_pretrained("path/of/this/folder")
```

`help(model.forward)` tells what it takes; `ampere.models.embedder.Embedder` also reads JPEG frames and plain text.
"""


def _front_matter(config: AMPereConfig) -> str:
    tags = ["ampere", "product-retrieval", "embeddings"]
    tags += ["video", "x-clip"] if config.sizes.use_vision else []
    tags += ["text", "bert"] if config.use_text else []
    lines = [
        "library_name: ampere",
        "pipeline_tag: feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---", ""])


def _embedding(sizes: ModelSettings) -> str:
    last = "one last layer for all domains" if sizes.share_last_layer else "a last layer per domain"
    return f"{sizes.embedding_dim} numbers of float32, length 1, compared by dot product; {last}"


def _frames(sizes: ModelSettings) -> str:
    if not sizes.use_vision:
        return "none are seen"
    return f"{sizes.num_frames} of a clip, 1 of a page; {sizes.image_size} x {sizes.image_size} RGB"


def _frame_tower(sizes: ModelSettings) -> str:
    if not sizes.use_vision:
        return "none"
    tower = f"X-CLIP, {sizes.vision_layers} layers of width {sizes.vision_width}, patches of {sizes.patch_size}"
    blocks = f"then {sizes.temporal_layers} blocks of width {sizes.width} over the frames"
    return f"{tower}, {_started(sizes.vision_weights)}; {blocks}"


def _text(config: AMPereConfig, source: str | None) -> str:
    if not config.use_text:
        return "none is read"
    told = "read" if source is None else TEXTS.get(source, _cell(source))
    return f"{told}; at most {config.sizes.max_text_tokens} tokens of a vocabulary of {config.vocab_size:,}"


def _text_tower(config: AMPereConfig) -> str:
    sizes = config.sizes
    if not config.use_text:
        return "none"
    return f"BERT, {sizes.text_layers} layers of width {sizes.text_width}, {_started(sizes.text_weights)}"


def _fusion(config: AMPereConfig) -> str:
    sizes = config.sizes
    if not (config.use_text and sizes.use_vision):
        return "none"
    blocks = (
        "no layers"
        if sizes.fusion in ("sum", "cat")
        else f"{sizes.fusion_layers} layers of width {sizes.width}"
    )
    return f"`{sizes.fusion}`, {blocks}"


def _started(weights: str) -> str:
    """Where a tower began; of a path its last part, since a card may be published and folders are nobody's business."""
    return f"started from {_source(weights)}" if weights else "from no pretrained weights"


def _source(weights: str) -> str:
    return _cell(Path(weights).name if Path(weights).is_absolute() else weights)


def _cell(value: Any) -> str:
    """A value that a Markdown table can hold."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split()).replace("|", "\\|")
