"""The video branch: X-CLIP's frame tower, then Transformer blocks over the frames.

Paper, section III-B, equation 1.

Letters: B clips, F frames passed (1 or n), n `num_frames`, V width of the tower, W width of the
frame features.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import XCLIPVisionConfig, XCLIPVisionModel
from transformers.models.x_clip.modeling_x_clip import XCLIPMultiframeIntegrationTransformer

from ampere.config.model import ModelSettings

# ImageNet's pixel statistics: X-CLIP's weights were trained with these, although they started from
# CLIP's weights.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class VideoBranch(nn.Module):
    """Frames to frame features z and a video feature v: X-CLIP's tower, projection, integration.

    The paper's integration has four layers, the published X-CLIP's one. With `temporal_layers` 0,
    `integration` is None and v is the mean of z.
    """

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__()
        self.image_size, self.num_frames = sizes.image_size, sizes.num_frames
        self.tower = XCLIPVisionModel(
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
        self.projection = nn.Linear(sizes.vision_width, sizes.message_width, bias=False)
        self.integration = frame_integration(sizes) if sizes.temporal_layers else None
        # See `_image_layers`; a plain list, so that the state dict does not include it.
        self._cached_image_layers: list[nn.Module] = []

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clips, or single images as clips of n equal frames.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB; F is n, or 1 for an image.

        Returns:
            v, float [B, W], and z, float [B, n, W].

        Raises:
            ValueError: frames have an invalid dtype, number or size.
        """
        check_frames(frames, self.image_size, self.num_frames)
        pixels = normalize_pixels(frames.flatten(0, 1))
        if frames.shape[1] == 1:
            pooled = self._encode_images(pixels)
        else:
            pooled = self.tower(pixels).pooler_output
        z = self.projection(pooled).unflatten(0, frames.shape[:2]).expand(-1, self.num_frames, -1)
        v = z.mean(dim=1) if self.integration is None else self.integration(z).pooler_output
        return v, z

    def _encode_images(self, pixels: Tensor) -> Tensor:
        """Run the tower on clips of one frame: float [B, 3, height, width] -> float [B, V].

        In a clip of n equal frames all n messages are equal, so cross-frame attention returns each
        frame its own message, and one pass is enough.
        """
        hidden = self.tower.pre_layernorm(self.tower.embeddings(pixels))
        for layer in self._image_layers():
            hidden = layer(hidden, None)
        return self.tower.post_layernorm(hidden[:, 0])

    def _image_layers(self) -> list[nn.Module]:
        """The tower's layers for single frames.

        Cached in evaluation mode, since torch.compile cannot trace the copying. Not cached in
        training: copies would not follow a change of mode or of gradient checkpointing.
        """
        layers = self.tower.encoder.layers
        if self.training:
            return [single_frame_layer(layer) for layer in layers]
        if not self._cached_image_layers:
            self._cached_image_layers = [single_frame_layer(layer) for layer in layers]
        return self._cached_image_layers


def frame_integration(sizes: ModelSettings) -> XCLIPMultiframeIntegrationTransformer:
    """Build the temporal blocks, with a residual over the whole stack.

    float [B, n, W] -> `pooler_output` float [B, W].
    """
    config = XCLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp_width,
        num_hidden_layers=sizes.temporal_layers,
        num_attention_heads=sizes.heads,
        num_frames=sizes.num_frames,
        attn_implementation="sdpa",  # outside of a whole model, the default is the slow "eager"
    )
    integration = XCLIPMultiframeIntegrationTransformer(config)
    nn.init.normal_(integration.position_embedding, std=0.02)
    return integration


def check_frames(frames: Tensor, image_size: int, num_frames: int) -> None:
    """Raise ValueError unless frames are uint8 [B, F, 3, image_size, image_size], F 1 or n."""
    image_shape = (3, image_size, image_size)
    if frames.dtype != torch.uint8 or frames.dim() != 5 or tuple(frames.shape[2:]) != image_shape:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; "
            f"expected torch.uint8 [B, F, {', '.join(map(str, image_shape))}]"
        )
    if frames.shape[1] not in (1, num_frames):
        raise ValueError(
            f"clips have {frames.shape[1]} frames; expected 1 (an image) or {num_frames}"
        )


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
