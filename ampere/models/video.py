"""The video branch: a vision tower over the frames, then Transformer blocks over their features.

Paper, section III-B, equation 1, where the tower is X-CLIP's.

Letters: B clips, F frames passed (1 or n), n `num_frames`, V width of the tower, W width of the
frame features.
"""

import torch
from torch import Tensor, nn
from transformers import XCLIPVisionConfig
from transformers.models.x_clip.modeling_x_clip import XCLIPMultiframeIntegrationTransformer

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.models.towers.base import VisionTower, check_frame_number, check_frames
from ampere.models.towers.efficientnet import EfficientNetTower
from ampere.models.towers.image_encoder import ImageEncoderConfig, ImageEncoderTower
from ampere.models.towers.xclip import XClipTower


class VideoBranch(nn.Module):
    """Frames to frame features z and a video feature v: tower, projection, integration.

    The paper's integration has four layers, the published X-CLIP's one. With `temporal_layers` 0,
    `integration` is None and v is the mean of z. Without `linear_layer`, z are the tower's features
    themselves.

    Args:
        sizes: of all parts.
        image_encoder: of the tower, if it is an image encoder of transformers.

    Attributes:
        width: W.
    """

    def __init__(
        self, sizes: ModelSettings, image_encoder: ImageEncoderConfig | None = None
    ) -> None:
        super().__init__()
        self.image_size, self.num_frames = sizes.image_size, sizes.num_frames
        self.tower = build_vision_tower(sizes, image_encoder)
        self.projection: nn.Module = (
            nn.Linear(self.tower.width, sizes.message_width, bias=False)
            if sizes.linear_layer
            else nn.Identity()
        )
        self.width = sizes.width if sizes.linear_layer else self.tower.width
        self.integration = frame_integration(sizes) if sizes.temporal_layers else None
        self.frozen = sizes.freeze_vision
        if self.frozen:
            self.tower.requires_grad_(False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clips, or single images as clips of n equal frames.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB; F is n, or 1 for an image. Or what
                `frozen_features` returned for them.

        Returns:
            v, float [B, W], and z, float [B, n, W].

        Raises:
            ValueError: frames have an invalid dtype, number or size.
        """
        features = self._features(frames)
        z = self.projection(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        z = z.expand(-1, self.num_frames, -1)
        v = z.mean(dim=1) if self.integration is None else self.integration(z).pooler_output
        return v, z

    def _features(self, frames: Tensor) -> Tensor:
        """The tower's features of frames, or the given ones: float [B, F, V]."""
        if not self.frozen:
            check_frames(frames, self.image_size, self.num_frames)
            return self.tower.encode_frames(frames)
        if frames.dtype == torch.float16:
            if frames.dim() != 3 or frames.shape[2] != self.tower.width:
                raise ValueError(
                    f"features are {list(frames.shape)}; expected [B, F, {self.tower.width}]"
                )
            check_frame_number(frames, self.num_frames)
            return frames.float()
        return self.frozen_features(frames).float()

    @torch.no_grad()
    def frozen_features(self, frames: Tensor) -> Tensor:
        """The features of a frozen tower, as they are stored and as the other layers read them.

        Rounded here, so that pixels and stored features give the same vectors.

        Args:
            frames: uint8 [B, F, 3, H, W].

        Returns:
            float16 [B, F, V].
        """
        check_frames(frames, self.image_size, self.num_frames)
        return self.tower.encode_frames(frames).half()

    def train(self, mode: bool = True) -> "VideoBranch":
        """Set the mode; a frozen tower stays in evaluation mode, whose features are stored."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self


def build_vision_tower(
    sizes: ModelSettings, image_encoder: ImageEncoderConfig | None
) -> VisionTower:
    """Build the tower that the settings name, with random weights."""
    if image_encoder is not None:
        return ImageEncoderTower(image_encoder)
    if sizes.vision_weights == EFFICIENTNET:
        return EfficientNetTower(sizes.image_size)
    return XClipTower(sizes)


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
