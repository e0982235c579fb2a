"""The video branch: X-CLIP's frame tower, then Transformer blocks over the frames (paper, section III-B, equation 1).

Letters: B clips, F frames given (1 or n), n `num_frames`, V width of the tower, W width of the frame features.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import XCLIPVisionConfig, XCLIPVisionModel
from transformers.models.x_clip.modeling_x_clip import XCLIPMultiframeIntegrationTransformer

from ampere.config.model import ModelSettings

# ImageNet's pixel statistics, which X-CLIP's weights were trained with, though they began as CLIP's.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class VideoBranch(nn.Module):
    """Frames to frame features z and one video feature v: X-CLIP's tower, projection and frame integration.

    The paper's integration is four layers deep where the published one has a single layer; `integration` is None where
    there is no layer, and v then the mean of z.
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
        self._evaluated: list[
            nn.Module
        ] = []  # see `_image_layers`; a plain list, which no state_dict sees

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clips, or single images as clips of n equal frames.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB; F is n, or 1 for an image.

        Returns:
            v: float [B, W], and z: float [B, n, W].

        Raises:
            ValueError: the frames have another type, number or size than the model was built for.
        """
        check_frames(frames, self.image_size, self.num_frames)
        pixels = normalise_pixels(frames.flatten(0, 1))
        pooled = (
            self._pool_images(pixels) if frames.shape[1] == 1 else self.tower(pixels).pooler_output
        )
        z = self.projection(pooled).unflatten(0, frames.shape[:2]).expand(-1, self.num_frames, -1)
        return z.mean(dim=1) if self.integration is None else self.integration(z).pooler_output, z

    def _pool_images(self, pixels: Tensor) -> Tensor:
        """The tower on clips of one frame: float [B, 3, H, W] -> float [B, V].

        In a clip of n equal frames all n messages are equal, so cross-frame attention hands each frame its own message
        back: one pass does for all n.
        """
        hidden = self.tower.pre_layernorm(self.tower.embeddings(pixels))
        for layer in self._image_layers():
            hidden = layer(hidden, None)
        return self.tower.post_layernorm(hidden[:, 0])

    def _image_layers(self) -> list[nn.Module]:
        """The tower's layers for single frames; in evaluation the same each time, for torch.compile traces no copying.

        In training they are made anew, for they would not follow a change of mode or of checkpointing.
        """
        if self.training:
            return [single_frame_layer(layer) for layer in self.tower.encoder.layers]
        if not self._evaluated:
            self._evaluated = [single_frame_layer(layer) for layer in self.tower.encoder.layers]
        return self._evaluated


def frame_integration(sizes: ModelSettings) -> XCLIPMultiframeIntegrationTransformer:
    """The temporal blocks: float [B, n, W] -> `pooler_output` float [B, W], with a residual over the whole stack."""
    config = XCLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp_width,
        num_hidden_layers=sizes.temporal_layers,
        num_attention_heads=sizes.heads,
        num_frames=sizes.num_frames,
        attn_implementation="sdpa",  # by itself, outside of a whole model, it would take the slow one
    )
    integration = XCLIPMultiframeIntegrationTransformer(config)
    nn.init.normal_(integration.position_embedding, std=0.02)
    return integration


def check_frames(frames: Tensor, image_size: int, num_frames: int) -> None:
    """Raise ValueError unless frames are uint8 [B, F, 3, H, W] of the model's size, F being `num_frames`, or 1."""
    wanted = (3, image_size, image_size)
    if frames.dtype != torch.uint8 or frames.dim() != 5 or tuple(frames.shape[2:]) != wanted:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; "
            f"the model takes torch.uint8 [B, F, {', '.join(map(str, wanted))}]"
        )
    if frames.shape[1] not in (1, num_frames):
        raise ValueError(f"clips have {frames.shape[1]} frames; give 1 (an image) or {num_frames}")


def single_frame_layer(layer: nn.Module) -> nn.Module:
    """An X-CLIP layer for clips of one frame, sharing every weight with the given layer.

    X-CLIP's layers fold the batch into clips by their plain attribute `num_frames`. A shallow copy (3 microseconds) has
    its own such attribute and the very same sub-modules. Setting the attribute of the layer itself would be seen by
    other threads, and by gradient checkpointing when it runs a clip's layer a second time.
    """
    single = copy.copy(layer)
    single.num_frames = 1  # type: ignore[assignment]
    return single


def normalise_pixels(
    images: Tensor, mean: Sequence[float] = PIXEL_MEAN, deviation: Sequence[float] = PIXEL_STD
) -> Tensor:
    """uint8 [B, 3, H, W] in 0..255 -> float32 [B, 3, H, W] with mean and deviation of the three colours taken out."""
    centre, scale = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, deviation)
    )
    return (images.float() / 255 - centre) / scale
