"""X-CLIP's frame tower, the paper's: the frames of a clip exchange messages in every layer."""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import XCLIPVisionConfig, XCLIPVisionModel

from ampere.config.model import ModelSettings
from ampere.models.towers.base import VisionTower, normalize_pixels


class XClipTower(XCLIPVisionModel, VisionTower):
    """The tower, under the weight names of transformers' class.

    Letters: see `ampere.models.towers.base`; V is `vision_width`.
    """

    # Of transformers' class, whose types are not read.
    config: Any
    embeddings: Any
    pre_layernorm: Any
    post_layernorm: Any
    encoder: Any
    set_attn_implementation: Any
    gradient_checkpointing_enable: Any

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__(
            XCLIPVisionConfig(
                hidden_size=sizes.vision_width,
                intermediate_size=4 * sizes.vision_width,
                num_hidden_layers=sizes.vision_layers,
                num_attention_heads=sizes.vision_heads,
                image_size=sizes.image_size,
                patch_size=sizes.patch_size,
                num_frames=sizes.num_frames,
            )
        )
        self.width = sizes.vision_width
        # See `_image_layers`; a plain list, so that the state dict does not include it.
        self._cached_image_layers: list[nn.Module] = []

    @classmethod
    def is_custom_code(cls) -> bool:
        """Count as transformers' own class, whose initial weights custom code would not get."""
        return False

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode clips, or single images as clips of n equal frames; see `VisionTower`."""
        pixels = normalize_pixels(frames.flatten(0, 1))
        is_image = frames.shape[1] == 1
        pooled = self._encode_images(pixels) if is_image else self(pixels).pooler_output
        return pooled.unflatten(0, frames.shape[:2])

    def enable_gradient_checkpointing(self) -> None:
        """Store only the activations between layers."""
        self.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _encode_images(self, pixels: Tensor) -> Tensor:
        """Run the tower on clips of one frame: float [B, 3, height, width] -> float [B, V].

        In a clip of n equal frames all n messages are equal, so cross-frame attention returns each
        frame its own message, and one pass is enough.
        """
        hidden = self.pre_layernorm(self.embeddings(pixels))
        for layer in self._image_layers():
            hidden = layer(hidden, None)
        return self.post_layernorm(hidden[:, 0])

    def _image_layers(self) -> list[nn.Module]:
        """The tower's layers for single frames.

        Cached in evaluation mode, since torch.compile cannot trace the copying. Not cached in
        training: copies would not follow a change of mode or of gradient checkpointing.
        """
        layers = self.encoder.layers
        if self.training:
            return [single_frame_layer(layer) for layer in layers]
        if not self._cached_image_layers:
            self._cached_image_layers = [single_frame_layer(layer) for layer in layers]
        return self._cached_image_layers


def single_frame_layer(layer: nn.Module) -> nn.Module:
    """Copy an X-CLIP layer for clips of one frame; the copy shares every weight.

    X-CLIP's layers fold the batch into clips by their plain attribute `num_frames`. A shallow copy
    (3 microseconds) has its own attribute and the same submodules. Setting the attribute on the
    layer itself would affect other threads, and gradient checkpointing when it runs a clip's layer
    a second time.
    """
    single = copy.copy(layer)
    single.num_frames = 1  # type: ignore[assignment]
    return single
