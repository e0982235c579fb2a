"""X-CLIP's original checkpoints (Microsoft VideoX, such as `k600_16_8.pth`), renamed.

A file holds one state dict of the whole X-CLIP; AMPere starts from its frame tower, visual
projection and frame integration, under the names that transformers' `XCLIPModel` gives them.

Letters: V width of the tower, W width of the frame features.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

XCLIP_SUFFIXES = (".pth", ".pt")
HEAD_WIDTH = 64  # the file does not state the number of heads; X-CLIP has one per 64 of the width

# transformers' names of the parts that AMPere uses, and of two weights.
TOWER, PROJECTION, INTEGRATION = "vision_model", "visual_projection", "mit"
CLASS_EMBEDDING = f"{TOWER}.embeddings.class_embedding"
INTEGRATION_POSITIONS = f"{INTEGRATION}.position_embedding"

# A block of the tower or of the frame integration; both have the same parts.
_BLOCK, _LAYER = r"(visual\.transformer|mit)\.resblocks\.(\d+)\.", r"\1.encoder.layers.\2."
# Original names to transformers' names. The first rule that matches a whole name applies.
_RULES = {
    r"visual\.class_embedding": CLASS_EMBEDDING,
    r"visual\.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"visual\.conv1\.weight": "vision_model.embeddings.patch_embedding.weight",
    r"visual\.ln_(pre|post)\.(.+)": r"vision_model.\1_layernorm.\2",
    r"visual\.proj": "visual_projection.weight",
    r"mit\.positional_embedding": INTEGRATION_POSITIONS,
    _BLOCK + r"ln_([12])\.(.+)": _LAYER + r"layer_norm\3.\4",
    _BLOCK + r"attn\.(.+)": _LAYER + r"self_attn.\3",
    _BLOCK + r"mlp\.c_fc\.(.+)": _LAYER + r"mlp.fc1.\3",
    _BLOCK + r"mlp\.c_proj\.(.+)": _LAYER + r"mlp.fc2.\3",
    _BLOCK + r"(message_(?:fc|ln|attn)\..+)": _LAYER + r"\3",
}
# Top-level names that AMPere does not use: text transformer, prompts, temperature.
_UNUSED_PARTS = {
    "token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection",
    "logit_scale", "prompts_generator", "prompts_visual_ln", "prompts_visual_proj",
}  # fmt: skip
# VideoX saves its settings beside the weights, as an object of this class. They are read as a
# plain dictionary, so neither the class nor any code of the file is needed.
_SETTINGS = (OrderedDict, "yacs.config.CfgNode")


def load_xclip_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Load X-CLIP's frame tower, visual projection and frame integration.

    Unknown names are returned unchanged, so that the caller can report them.

    Args:
        path: a `.pth` file: a state dict, or a dictionary with one under `model`. The prefix
            `module.` of data-parallel training is removed.

    Returns:
        `vision_model.*`, `visual_projection.weight` and `mit.*`, on the CPU and in the dtype that
        they were saved in.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or holds Python objects or no named tensors.
    """
    return _convert(_state_dict(_load(Path(path)), path))


def _load(path: Path) -> Any:
    """Load a file without unpickling Python objects."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected an X-CLIP checkpoint of VideoX, such as k600_16_8.pth "
            "(or give the hub name or the folder of an X-CLIP)"
        )
    try:
        with torch.serialization.safe_globals([_SETTINGS]):
            return torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise anything
        python_object = re.search(r"GLOBAL (\S+)", str(error))
        if not python_object:
            raise ValueError(
                f"{path} cannot be read; expected an undamaged file that torch.save wrote"
            ) from error
    # Raised outside of the handler to hide torch's own message, which advises unpickling.
    raise ValueError(
        f"{path} holds a Python object ({python_object[1]}), which is not unpickled, as that can "
        "run any code; expected only tensors. If you trust the file, load it elsewhere and save "
        "its state dict to a new file"
    )


def _state_dict(content: Any, path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file's content, without the prefix of data-parallel training."""
    weights = content.get("model", content) if isinstance(content, dict) else content
    expected = "expected named tensors, or a dictionary with them under 'model'"
    if not isinstance(weights, dict):
        raise ValueError(f"{path} holds a {type(weights).__name__}; {expected}")
    if not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{path} holds the keys {sorted(map(str, weights))[:8]}; {expected}")
    return {str(name).removeprefix("module."): weight for name, weight in weights.items()}


def _convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The used weights under transformers' names and in its shapes."""
    converted: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.split(".")[0] in _UNUSED_PARTS:
            continue
        renamed = _rename(name)
        if joint := re.fullmatch(r"((?:vision_model|mit)\..+attn)\.in_proj_(weight|bias)", renamed):
            # Query, key and value are stacked along the first dimension: [3V, V] or [3V].
            for letter, part in zip("qkv", weight.chunk(3), strict=False):
                converted[f"{joint[1]}.{letter}_proj.{joint[2]}"] = part
        else:
            # The original multiplies by its projection [V, W] from the right; a Linear layer
            # stores [W, V].
            converted[renamed] = weight.t() if name == "visual.proj" else weight
    return converted


def _rename(name: str) -> str:
    """`visual.ln_pre.bias` gives `vision_model.pre_layernorm.bias`; unknown names stay."""
    for pattern, new in _RULES.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new).replace("visual.transformer.", "vision_model.")
    return name
