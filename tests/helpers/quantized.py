"""The shipped language model with 8-bit weights, in the format of compressed-tensors."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
GROUP = {
    "targets": ["Linear"],
    "weights": WEIGHTS,
    "input_activations": WEIGHTS | {"strategy": "token", "dynamic": True},
}


def write_quantized(folder: Path) -> Path:
    """Write the model with its linear layers quantized, and return the folder."""
    shutil.copytree(str(files("ampere.text") / "small_lm"), folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        scale = weights[name].float().abs().amax(1, keepdim=True) / 127
        weights[name] = (weights[name].float() / scale).round().to(torch.int8)
        weights[f"{name}_scale"] = scale
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": GROUP},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
