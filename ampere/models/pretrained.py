"""Starting weights for the two towers: hub, local folders, or X-CLIP's original file (paper, section IV-B)."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import BertModel, XCLIPModel

from ampere.models.ampere import AMPere
from ampere.models.checkpoint import copy_tensors, copy_weights
from ampere.models.video import VideoBranch
from ampere.models.xclip_checkpoint import (
    CLASS_EMBEDDING,
    HEAD_WIDTH,
    SUFFIXES,
    load_xclip_checkpoint,
)


def load_pretrained_towers(model: AMPere, vision_weights: str, text_weights: str) -> None:
    """Copy X-CLIP's and BERT's weights into a model; an empty name leaves that tower as it is.

    Args:
        vision_weights: hub name or folder of an X-CLIP, such as `microsoft/xclip-base-patch16-kinetics-600`, or an
            original checkpoint, such as `k600_16_8.pth`. Its frame tower, visual projection and frame integration are
            taken; of the integration the layers that both have: X-CLIP has one, and the paper four.
        text_weights: hub name or folder of a BERT, such as `hfl/rbt6`.

    Raises:
        ValueError: a weight is missing or of another shape (the message names it), the head counts differ, weights are
            given for a tower that the model lacks, or a checkpoint holds other things than tensors.
        OSError: the hub or the folder does not have such a model, or there is no such file.
    """
    if text_weights and model.text is None:
        raise ValueError(
            f"text_weights is {text_weights!r}, but the model reads no text; leave it empty"
        )
    if vision_weights and model.video is None:
        raise ValueError(
            f"vision_weights is {vision_weights!r}, but the model sees no frames; leave it empty"
        )
    if vision_weights and model.video is not None:
        _load_vision(model.video, vision_weights)
    if text_weights and model.text is not None:
        _load_text(model.text, text_weights)


def _load_vision(video: VideoBranch, source: str) -> None:
    original = Path(source).suffix in SUFFIXES
    weights, heads = _original_xclip(source) if original else _library_xclip(source)
    # Under X-CLIP's own names, so that a message about a weight names it as the checkpoint does.
    parts = nn.ModuleDict({"vision_model": video.tower, "visual_projection": video.projection})
    configs = {"vision_model": video.tower.config}
    if video.integration is not None:
        parts["mit"] = video.integration
        configs["mit"] = video.integration.encoder.config
    for name, config in configs.items():
        if name in heads:
            _check_heads(heads[name], config.num_attention_heads, source)
    own = parts.state_dict()
    depth = min(max(map(_layer_of_integration, names), default=-1) for names in (own, weights))
    depth = max(depth, 0)  # of a file without any of its layers the first is named as missing
    copy_tensors(
        {name: weight for name, weight in own.items() if _layer_of_integration(name) <= depth},
        {
            name: weight
            for name, weight in weights.items()
            if _layer_of_integration(name) <= depth
            and ("mit" in parts or not name.startswith("mit."))
        },
        source=source,
    )


def _layer_of_integration(name: str) -> int:
    """The number of the frame integration's layer that a weight is of; -1: of none."""
    found = re.match(r"mit\.encoder\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _original_xclip(source: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Weights, and the heads of the parts; none where the weight that tells it is missing, which is then named."""
    weights = load_xclip_checkpoint(source)
    widths = {"vision_model": CLASS_EMBEDDING, "mit": "mit.position_embedding"}
    heads = {
        part: weights[name].shape[-1] // HEAD_WIDTH
        for part, name in widths.items()
        if name in weights
    }
    return weights, heads


def _library_xclip(source: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    loaded: Any = XCLIPModel.from_pretrained(source, output_loading_info=True)
    pretrained, info = loaded
    weights = _found(pretrained.state_dict(), info["missing_keys"])
    config = pretrained.config.vision_config
    used = {
        k: v
        for k, v in weights.items()
        if k.split(".")[0] in ("vision_model", "visual_projection", "mit")
    }
    return used, {"vision_model": config.num_attention_heads, "mit": config.mit_num_attention_heads}


def _load_text(text: BertModel, source: str) -> None:
    loaded: Any = BertModel.from_pretrained(
        source, add_pooling_layer=False, output_loading_info=True
    )
    pretrained, info = loaded
    _check_heads(pretrained.config.num_attention_heads, text.config.num_attention_heads, source)
    copy_weights(text, _found(pretrained.state_dict(), info["missing_keys"]), source=source)


def _found(weights: dict[str, Tensor], missing: Iterable[str]) -> dict[str, Tensor]:
    """The weights that were in the files: transformers draws the missing ones at random, with only a warning."""
    absent = set(missing)
    return {name: weight for name, weight in weights.items() if name not in absent}


def _check_heads(theirs: int, ours: int, source: str) -> None:
    """The number of heads changes what weights mean, but not their shapes."""
    if theirs != ours:
        raise ValueError(
            f"{source} has num_attention_heads {theirs}; the model was built with {ours}"
        )
