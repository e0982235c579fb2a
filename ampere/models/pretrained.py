"""Pretrained weights for both towers, from the hub, a folder or an original X-CLIP file (IV-B)."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import BertModel, XCLIPModel

from ampere.models.ampere import AMPere
from ampere.models.checkpoint import copy_tensors, copy_weights, weights_from_files
from ampere.models.towers.efficientnet import EfficientNetTower, load_efficientnet_weights
from ampere.models.towers.image_encoder import ImageEncoderTower, load_image_encoder_weights
from ampere.models.towers.text import load_text_encoder_weights
from ampere.models.towers.xclip import XClipTower
from ampere.models.video import VideoBranch
from ampere.models.xclip_checkpoint import (
    CLASS_EMBEDDING,
    HEAD_WIDTH,
    INTEGRATION,
    INTEGRATION_POSITIONS,
    PROJECTION,
    TOWER,
    XCLIP_SUFFIXES,
    load_xclip_checkpoint,
)

Weights = dict[str, Tensor]
Heads = dict[str, int]  # part of X-CLIP -> its number of attention heads


def load_pretrained_towers(model: AMPere, vision_weights: str, text_weights: str) -> None:
    """Copy X-CLIP's and BERT's weights into a model; an empty name leaves that tower as it is.

    Args:
        vision_weights: those of the tower that the model was built with. Of an X-CLIP the hub name
            or folder, such as `microsoft/xclip-base-patch16-kinetics-600`, or an original
            checkpoint, such as `k600_16_8.pth`. Its frame tower, visual projection and frame
            integration are copied; of the integration only the layers that both have: X-CLIP has
            one, the paper four. Of another image encoder, the encoder alone is copied.
        text_weights: hub name or folder of a BERT, such as `hfl/rbt6`, or of another encoder that
            the model was built with.

    Raises:
        ValueError: a weight is missing or has another shape (the message names it), the numbers of
            heads differ, weights are given for a tower that the model does not have, or a
            checkpoint holds other objects than tensors.
        OSError: the hub or the folder does not have such a model, or the file does not exist.
    """
    if text_weights and model.text is None:
        raise ValueError(
            f"text_weights is {text_weights!r}, but the model reads no text; leave it empty"
        )
    if vision_weights and model.video is None:
        raise ValueError(
            f"vision_weights is {vision_weights!r}, but the model reads no frames; leave it empty"
        )
    if vision_weights and model.video is not None:
        load_vision_tower(model.video, vision_weights)
    if text_weights and model.text is not None:
        if model.config.text_encoder is None:
            _load_text(model.text, text_weights)
        else:
            weights = load_text_encoder_weights(text_weights)
            copy_weights(model.text, weights, source=text_weights)


def load_vision_tower(video: VideoBranch, source: str) -> None:
    """Copy the published weights of a vision tower; see `load_pretrained_towers`."""
    tower = video.tower
    if isinstance(tower, EfficientNetTower):
        copy_weights(tower.network, load_efficientnet_weights(), source=source)
    elif isinstance(tower, ImageEncoderTower):
        copy_weights(tower.encoder, load_image_encoder_weights(source), source=source)
    else:
        _load_xclip(video, source)


def _load_xclip(video: VideoBranch, source: str) -> None:
    """Copy X-CLIP's weights into the video branch, with as many integration layers as both have."""
    original = Path(source).suffix in XCLIP_SUFFIXES
    theirs, heads = _original_xclip(source) if original else _transformers_xclip(source)
    _check_vision_heads(video, heads, source)

    own = _xclip_parts(video).state_dict()
    if video.integration is None:
        theirs = {name: theirs[name] for name in theirs if not name.startswith(f"{INTEGRATION}.")}
    if not isinstance(video.projection, nn.Linear):
        theirs = {name: theirs[name] for name in theirs if not name.startswith(f"{PROJECTION}.")}
    layers = min(_integration_layers(own), _integration_layers(theirs))
    layers = max(layers, 1)  # if a file has none, its first layer is reported as missing
    copy_tensors(_first_layers(own, layers), _first_layers(theirs, layers), source=source)


def _xclip_parts(video: VideoBranch) -> nn.ModuleDict:
    """The branch's modules under X-CLIP's names, so that messages name weights as files do."""
    parts = nn.ModuleDict({TOWER: video.tower})
    if isinstance(video.projection, nn.Linear):
        parts[PROJECTION] = video.projection
    if video.integration is not None:
        parts[INTEGRATION] = video.integration
    return parts


def _check_vision_heads(video: VideoBranch, heads: Heads, source: str) -> None:
    assert isinstance(video.tower, XClipTower)
    configs = {TOWER: video.tower.config}
    if video.integration is not None:
        configs[INTEGRATION] = video.integration.encoder.config
    for part, config in configs.items():
        if part in heads:
            _check_heads(heads[part], config.num_attention_heads, source)


def _integration_layers(weights: Weights) -> int:
    """Number of layers of the frame integration among some weights."""
    return max(map(_integration_layer, weights), default=-1) + 1


def _first_layers(weights: Weights, layers: int) -> Weights:
    """The weights without integration layers from number `layers` on."""
    return {name: w for name, w in weights.items() if _integration_layer(name) < layers}


def _integration_layer(name: str) -> int:
    """Index of the integration layer that a weight belongs to; -1 for other weights."""
    match = re.match(rf"{INTEGRATION}\.encoder\.layers\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _original_xclip(source: str) -> tuple[Weights, Heads]:
    """Weights and heads of an original checkpoint, which states heads only by widths.

    Heads of a part are absent if the weight that has its width is; that weight is then reported as
    missing.
    """
    weights = load_xclip_checkpoint(source)
    widths = {TOWER: CLASS_EMBEDDING, INTEGRATION: INTEGRATION_POSITIONS}
    heads = {
        part: weights[name].shape[-1] // HEAD_WIDTH
        for part, name in widths.items()
        if name in weights
    }
    return weights, heads


def _transformers_xclip(source: str) -> tuple[Weights, Heads]:
    """Weights and heads of an X-CLIP in transformers' format."""
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = XCLIPModel.from_pretrained(source, output_loading_info=True)
    pretrained, info = loaded
    weights = weights_from_files(pretrained.state_dict(), info["missing_keys"])
    used = {
        name: weight
        for name, weight in weights.items()
        if name.split(".")[0] in (TOWER, PROJECTION, INTEGRATION)
    }
    config = pretrained.config.vision_config
    heads = {TOWER: config.num_attention_heads, INTEGRATION: config.mit_num_attention_heads}
    return used, heads


def _load_text(text: BertModel, source: str) -> None:
    """Copy a BERT's weights into the text tower."""
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = BertModel.from_pretrained(
        source, add_pooling_layer=False, output_loading_info=True
    )
    pretrained, info = loaded
    _check_heads(pretrained.config.num_attention_heads, text.config.num_attention_heads, source)
    weights = weights_from_files(pretrained.state_dict(), info["missing_keys"])
    copy_weights(text, weights, source=source)


def _check_heads(theirs: int, ours: int, source: str) -> None:
    """Raise unless both have as many heads, which change a weight's meaning but not its shape."""
    if theirs != ours:
        raise ValueError(
            f"{source} has num_attention_heads {theirs}; the model was built with {ours}"
        )
