"""What a vision tower is: a network that turns each frame into one feature.

Letters: B clips, F frames (1 or `num_frames`), V width of the tower.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# ImageNet's pixel statistics. X-CLIP's weights were trained with these, although they started from
# CLIP's weights.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class VisionTower(nn.Module, ABC):
    """A vision tower.

    Attributes:
        width: V.
    """

    width: int

    @abstractmethod
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode the frames of clips.

        Args:
            frames: uint8 [B, F, 3, height, width], RGB, not normalized.

        Returns:
            float [B, F, V].
        """

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of storing them."""


def check_frames(frames: Tensor, image_size: int, num_frames: int) -> None:
    """Raise ValueError unless frames are uint8 [B, F, 3, image_size, image_size], F 1 or n."""
    image_shape = (3, image_size, image_size)
    if frames.dtype != torch.uint8 or frames.dim() != 5 or tuple(frames.shape[2:]) != image_shape:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; "
            f"expected torch.uint8 [B, F, {', '.join(map(str, image_shape))}]"
        )
    check_frame_number(frames, num_frames)


def check_frame_number(frames: Tensor, num_frames: int) -> None:
    """Raise ValueError unless clips [B, F, ...] have 1 frame or `num_frames`."""
    if frames.shape[1] not in (1, num_frames):
        raise ValueError(
            f"clips have {frames.shape[1]} frames; expected 1 (an image) or {num_frames}"
        )


def normalize_pixels(
    images: Tensor, mean: Sequence[float] = PIXEL_MEAN, deviation: Sequence[float] = PIXEL_STD
) -> Tensor:
    """Standardize the three color channels.

    Args:
        images: uint8 [B, 3, height, width], 0 to 255.
        mean: of each channel, with pixels in 0 to 1.
        deviation: standard deviation of each channel.

    Returns:
        float32 [B, 3, height, width].
    """
    center, scale = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, deviation)
    )
    return (images.float() / 255 - center) / scale
