"""Any image encoder of transformers as a vision tower: SigLIP 2, DINOv3, CLIP, ConvNeXt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from ampere.models.checkpoint import weights_from_files
from ampere.models.towers.base import PIXEL_MEAN, PIXEL_STD, VisionTower, normalize_pixels


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """What an image encoder is built from; part of the model's config.json.

    Attributes:
        fields: of its transformers config, as `to_diff_dict()` returns them, with `model_type`.
        image_size: height and width of the frames, in pixels.
        mean: pixel means of the three channels, with pixels in 0 to 1.
        deviation: standard deviations of the three channels.
    """

    fields: dict[str, Any]
    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class ImageEncoderTower(VisionTower):
    """An image encoder; a frame's feature is the pooler's output, or the mean of its last layer.

    Raises:
        ValueError: the encoder needs other inputs than pixels.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        fields = dict(config.fields)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(fields.pop("model_type"), **fields)
        )
        side = config.image_size
        try:
            with torch.no_grad():
                black = torch.zeros(1, 1, 3, side, side, dtype=torch.uint8)
                self.width = self.encode_frames(black).shape[-1]
        except TypeError as error:
            raise ValueError(
                f"{type(self.encoder).__name__} does not take pixels of one size alone: {error}; "
                "expected an image encoder such as SigLIP, CLIP, DINOv3 or ConvNeXt"
            ) from error

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode each frame by itself; see `VisionTower`."""
        pixels = normalize_pixels(frames.flatten(0, 1), self.config.mean, self.config.deviation)
        output = self.encoder(pixel_values=pixels)
        pooled = output.get("pooler_output")
        if pooled is None:
            last = output.last_hidden_state  # [B, positions, V] or [B, V, height, width]
            pooled = last.mean(dim=1) if last.dim() == 3 else last.mean(dim=(2, 3))
        return pooled.flatten(1).unflatten(0, frames.shape[:2])

    def enable_gradient_checkpointing(self) -> None:
        """Store only the activations between layers."""
        self.encoder.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def read_image_encoder(source: str) -> ImageEncoderConfig:
    """Read the config of an image encoder, or of the image encoder in a model of two towers.

    Args:
        source: hub name or folder.

    Raises:
        OSError: the hub or the folder has no such model, or no config of its image processor.
        ValueError: the image processor's config names no size.
    """
    config = AutoConfig.from_pretrained(source)
    config = getattr(config, "vision_config", config)
    processor, _ = ImageProcessingMixin.get_image_processor_dict(source)
    return ImageEncoderConfig(
        fields=config.to_diff_dict() | {"model_type": config.model_type},
        image_size=input_size(processor, source),
        mean=tuple(processor.get("image_mean") or PIXEL_MEAN),
        deviation=tuple(processor.get("image_std") or PIXEL_STD),
    )


def input_size(processor: dict[str, Any], source: str) -> int:
    """Height and width of the square images that an image processor makes, in pixels.

    >>> input_size({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, "")
    224

    Raises:
        ValueError: it names no size.
    """
    for key in ("crop_size", "size") if processor.get("do_center_crop", True) else ("size",):
        size = processor.get(key)
        if isinstance(size, int):
            return size
        for name in ("height", "shortest_edge"):
            if isinstance(size, dict) and name in size:
                return int(size[name])
    raise ValueError(
        f"the image processor of {source} names no size: {processor.get('size')!r}; expected "
        "crop_size or size with height or shortest_edge"
    )


def load_image_encoder_weights(source: str) -> dict[str, Tensor]:
    """Load the published weights of an image encoder; those of a model of two towers in part.

    Raises:
        OSError: the hub or the folder does not have such a model.
    """
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    pretrained, info = loaded
    weights = weights_from_files(pretrained.state_dict(), info["missing_keys"])
    if not hasattr(pretrained, "vision_model"):
        return weights
    prefix = "vision_model."
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
