"""X-CLIP as its authors publish it (Microsoft VideoX, files such as `k600_16_8.pth`), under transformers' names.

Their file holds one state dict of the whole X-CLIP; AMPere starts from its frame tower, visual projection and frame
integration.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUFFIXES = (".pth", ".pt")
HEAD_WIDTH = (
    64  # the file does not say how many heads there are; X-CLIP has one per 64 of the width
)
CLASS_EMBEDDING = "vision_model.embeddings.class_embedding"

# Of the tower and of the frame integration, whose blocks have the same parts.
_BLOCK, _LAYER = r"(visual\.transformer|mit)\.resblocks\.(\d+)\.", r"\1.encoder.layers.\2."
# Names there to names here. The first rule that fits a whole name holds.
_RULES = {
    r"visual\.class_embedding": CLASS_EMBEDDING,
    r"visual\.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"visual\.conv1\.weight": "vision_model.embeddings.patch_embedding.weight",
    r"visual\.ln_(pre|post)\.(.+)": r"vision_model.\1_layernorm.\2",
    r"visual\.proj": "visual_projection.weight",
    r"mit\.positional_embedding": "mit.position_embedding",
    _BLOCK + r"ln_([12])\.(.+)": _LAYER + r"layer_norm\3.\4",
    _BLOCK + r"attn\.(.+)": _LAYER + r"self_attn.\3",
    _BLOCK + r"mlp\.c_fc\.(.+)": _LAYER + r"mlp.fc1.\3",
    _BLOCK + r"mlp\.c_proj\.(.+)": _LAYER + r"mlp.fc2.\3",
    _BLOCK + r"(message_(?:fc|ln|attn)\..+)": _LAYER + r"\3",
}
# First parts of the names of what AMPere does not use: text transformer, prompts, temperature.
_OTHER_PARTS = {"token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection", "logit_scale",
                "prompts_generator", "prompts_visual_ln", "prompts_visual_proj"}  # fmt: skip
# VideoX saves its settings beside the weights, as an object of this class. They are read as a plain dictionary, so
# that neither the class nor any code of the file is needed.
_SETTINGS = (OrderedDict, "yacs.config.CfgNode")


def load_xclip_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The weights of X-CLIP's frame tower, visual projection and frame integration, as transformers' `XCLIPModel` names
    them.

    Names that are unknown are handed on as they are, for the caller to complain about.

    Args:
        path: a `.pth` file: a state dict, or a dictionary with one under `model`. A `module.` that data-parallel
            training put before the names is dropped.

    Returns:
        `vision_model.*`, `visual_projection.weight` and `mit.*`, on the CPU, in the type that they were saved in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds Python objects, or no named tensors, or is damaged.
    """
    return _convert(_state_dict(_read(Path(path)), path))


def _read(path: Path) -> Any:
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
    except Exception as error:  # whatever the bytes of a damaged file happen to lead to
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise ValueError(
                f"{path} cannot be read; expected a file that torch.save wrote, undamaged"
            ) from error
    # Outside of the handler: torch's own message advises to unpickle the object after all.
    raise ValueError(
        f"{path} holds a Python object ({found[1]}), which is not unpickled, because that can run any code; "
        "expected tensors alone. If you trust the file, save its state dict to a new one where it can be read"
    )


def _state_dict(content: Any, path: Path | str) -> dict[str, Tensor]:
    weights = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(
        isinstance(weight, Tensor) for weight in weights.values()
    ):
        came = (
            f"the keys {sorted(map(str, weights))[:8]}"
            if isinstance(weights, dict)
            else f"a {type(weights).__name__}"
        )
        raise ValueError(
            f"{path} holds {came}; expected named tensors, or a dictionary with them under 'model'"
        )
    return {str(name).removeprefix("module."): weight for name, weight in weights.items()}


def _convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    converted: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.split(".")[0] in _OTHER_PARTS:
            continue
        renamed = _rename(name)
        if joint := re.fullmatch(r"((?:vision_model|mit)\..+attn)\.in_proj_(weight|bias)", renamed):
            # Query, key and value lie below one another: [3V, V] or [3V].
            for letter, part in zip("qkv", weight.chunk(3), strict=False):
                converted[f"{joint[1]}.{letter}_proj.{joint[2]}"] = part
        else:
            # They multiply by the projection from the right, so it is [V, W]; a Linear layer keeps it as [W, V].
            converted[renamed] = weight.t() if name == "visual.proj" else weight
    return converted


def _rename(name: str) -> str:
    for pattern, new in _RULES.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new).replace("visual.transformer.", "vision_model.")
    return name
