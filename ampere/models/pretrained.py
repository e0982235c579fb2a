"""Starting weights for the two towers, from the Hugging Face hub or local folders (paper, section IV-B)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import BertModel, XCLIPModel

from ampere.models.ampere import AMPere
from ampere.models.checkpoint import copy_weights


def load_pretrained_towers(model: AMPere, vision_weights: str, text_weights: str) -> None:
    """Copy X-CLIP's and BERT's weights into a model; an empty name leaves that tower as it is.

    Args:
        vision_weights: hub name or folder of an X-CLIP, such as `microsoft/xclip-base-patch16-kinetics-600`. Its
            frame tower and visual projection are taken.
        text_weights: hub name or folder of a BERT, such as `hfl/rbt6`.

    Raises:
        ValueError: a weight is missing or of another shape (the message names it), the head counts differ, or text
            weights are given to a model without text.
        OSError: the hub or the folder does not have such a model.
    """
    if text_weights and model.text is None:
        raise ValueError(f"text_weights is {text_weights!r}, but the model reads no text; leave it empty")
    if vision_weights:
        _load_vision(model, vision_weights)
    if text_weights:
        _load_text(model, text_weights)


def _load_vision(model: AMPere, source: str) -> None:
    loaded: Any = XCLIPModel.from_pretrained(source, output_loading_info=True)
    pretrained, info = loaded
    _check_heads(pretrained.vision_model.config, model.video.tower.config, source)
    # Under X-CLIP's own names, so that a message about a weight names it as the checkpoint does.
    parts = nn.ModuleDict({"vision_model": model.video.tower, "visual_projection": model.video.projection})
    weights = _found(pretrained.state_dict(), info["missing_keys"])
    copy_weights(parts, {k: v for k, v in weights.items() if k.split(".")[0] in parts}, source=source)


def _load_text(model: AMPere, source: str) -> None:
    assert model.text is not None
    loaded: Any = BertModel.from_pretrained(source, add_pooling_layer=False, output_loading_info=True)
    pretrained, info = loaded
    _check_heads(pretrained.config, model.text.config, source)
    copy_weights(model.text, _found(pretrained.state_dict(), info["missing_keys"]), source=source)


def _found(weights: dict[str, Tensor], missing: Iterable[str]) -> dict[str, Tensor]:
    """The weights that were in the files: transformers draws the missing ones at random, with only a warning."""
    absent = set(missing)
    return {name: weight for name, weight in weights.items() if name not in absent}


def _check_heads(theirs: Any, ours: Any, source: str) -> None:
    """The number of heads changes what weights mean, but not their shapes."""
    if theirs.num_attention_heads != ours.num_attention_heads:
        raise ValueError(
            f"{source} has num_attention_heads {theirs.num_attention_heads}; "
            f"the model was built with {ours.num_attention_heads}"
        )
