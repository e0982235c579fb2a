"""CN-CLIP and similar comparison systems: CLIP features of frames and text (paper, IV-B).

The features are combined without further layers.

    model = load_cn_clip("OFA-Sys/chinese-clip-vit-base-patch16", num_frames=8, combine="mean")
    vectors = model(frames, token_ids, token_mask)  # float32 [B, 512]

| system | combine | text |
|---|---|---|
| CN-CLIP | visual | none |
| CN-CLIP-m0, -m1, -m1-finetune | mean | raw transcript; LLM summary |
| RICE | concat | raw transcript |

Letters: B batch, F frames (1 or `num_frames`), L tokens, C dimension of CLIP's projection, D
embedding dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ChineseCLIPConfig, ChineseCLIPModel, PreTrainedTokenizerBase

from ampere.config.model import Combine, View
from ampere.models import checkpoint, model_folder
from ampere.models.base import Network, check_tokens, in_float32
from ampere.models.towers.base import check_frames, normalize_pixels

# Pixel statistics that the published weights were trained with.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Longest text that the published weights were trained with, CLS and SEP included.
MAX_TEXT_TOKENS = 52


@dataclass(frozen=True, kw_only=True)
class CNCLIPConfig:
    """What a model is built from; saved as config.json beside its weights.

    Attributes:
        clip: fields of a ChineseCLIPConfig, as its `to_diff_dict()` returns them.
        num_frames: frames of a clip; a page has one.
        combine: visual: the video feature alone. mean: the normalized mean of video and text
            feature. concat: both concatenated and scaled, so that a dot product is the mean of the
            two similarities.
        view: what of a frame is read; see `ModelSettings`.

    Raises:
        ValueError: `num_frames` is below 1, or `combine` is unknown.
    """

    clip: dict[str, Any]
    num_frames: int
    combine: Combine
    view: View = "center"

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}; it must be at least 1")
        if self.combine not in get_args(Combine):
            raise ValueError(
                f"combine is {self.combine!r}; give one of {', '.join(get_args(Combine))}"
            )


class CNCLIP(Network):
    """Chinese-CLIP over frames and text, as a replacement for AMPere.

    Parameters that do not affect the embedding are frozen, since DDP waits for the gradient of
    every trainable parameter: CLIP's own temperature (our losses have theirs), and the text tower
    under `visual`.

    Attributes: those of `ampere.models.base.Network`; `embedding_dim` is C, or 2 C under `concat`.
    """

    def __init__(self, config: CNCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.clip = ChineseCLIPModel(ChineseCLIPConfig.from_dict(config.clip))
        self.clip.logit_scale.requires_grad_(False)
        self.num_frames, self.view = config.num_frames, config.view
        positions: int = self.clip.config.text_config.max_position_embeddings
        self.max_text_tokens = min(MAX_TEXT_TOKENS, positions)
        self.image_size = self.clip.config.vision_config.image_size
        features = 2 if config.combine == "concat" else 1
        self.embedding_dim = features * self.clip.config.projection_dim
        self.reads_text = config.combine != "visual"
        if not self.reads_text:
            for part in (self.clip.text_model, self.clip.text_projection):
                part.requires_grad_(False)

    def forward(
        self,
        frames: Tensor,
        token_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalized. F is `num_frames`, or 1 for page
                images, whose vector is that of `num_frames` equal frames.
            token_ids: int64 [B, L] with CLS first. `visual` ignores ids and mask.
            token_mask: bool or int64 [B, L]; zero marks padding. A row of zeros has no text.
            domains: ignored; part of the interface.

        Returns:
            float32 [B, D]. A row without text is the video feature alone, followed by zeros under
            `concat`. Each row has length 1, except rows without text under `concat`, which have
            length sqrt(1/2).

        Raises:
            ValueError: frames have an invalid shape or dtype, or the model reads text and tokens
                are missing or misshapen.
        """
        check_frames(frames, self.image_size, self.num_frames)
        video = self._encode_frames(frames)
        if not self.reads_text:
            return video
        text, present = self._encode_text(token_ids, token_mask, len(frames))
        text = torch.where(present[:, None], text, 0.0)
        if self.config.combine == "mean":
            return functional.normalize(video + text, dim=-1)
        # Not normalized again. A dot product is then the mean of RICE's two similarities for all
        # pairs of rows, where a missing text counts as zero, and a query without text ranks by
        # frames alone. At length 1 a row without text would score sqrt(2) times as high as an
        # equal one with text.
        return torch.cat([video, text], dim=-1) / math.sqrt(2)

    def _encode_frames(self, frames: Tensor) -> Tensor:
        """Video feature (section IV-B): normalized mean of the frames' unit features.

        uint8 [B, F, 3, H, W] -> float32 [B, C] of length 1.
        """
        pixels = normalize_pixels(frames.flatten(0, 1), CLIP_MEAN, CLIP_STD)
        # As CLIP's `get_image_features` does, except for the projection's dtype.
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        features = functional.normalize(in_float32(self.clip.visual_projection, pooled), dim=-1)
        features = features.unflatten(0, frames.shape[:2])
        return functional.normalize(features.mean(dim=1), dim=-1)

    def _encode_text(
        self, token_ids: Tensor | None, token_mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Text feature, float32 [B, C] of length 1, and which rows have text, bool [B]."""
        token_ids, visible = check_tokens(token_ids, token_mask, batch)
        positions = self.clip.config.text_config.max_position_embeddings
        if token_ids.shape[1] > positions:
            raise ValueError(
                f"texts have {token_ids.shape[1]} tokens; expected at most {positions}, the "
                "number of positions of the text tower"
            )
        present = visible.any(dim=1)
        # Attention over no token may give NaN, whose gradient would pass torch.where; so a missing
        # text shows all of its tokens.
        visible = visible | ~present[:, None]
        tokens = self.clip.text_model(
            input_ids=token_ids, attention_mask=visible.long()
        ).last_hidden_state
        features = in_float32(self.clip.text_projection, tokens[:, 0])
        return functional.normalize(features, dim=-1), present

    def enable_gradient_checkpointing(self) -> None:
        """Store only the activations between layers; recompute the others in the backward pass."""
        self.clip.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate; the keys are AMPere's.

        Returns:
            `text` and `video`: the towers with their projections. `fusion` and `rest` are empty, as
            is `text` if no text is read.
        """
        clip = self.clip
        text = [*clip.text_model.parameters(), *clip.text_projection.parameters()]
        video = [*clip.vision_model.parameters(), *clip.visual_projection.parameters()]
        return {"text": text if self.reads_text else [], "video": video, "fusion": [], "rest": []}

    def save_pretrained(
        self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Write model.safetensors, config.json and, if given, the tokenizer's files to a folder."""
        checkpoint.save(folder, self.config, self.state_dict())
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> CNCLIP:
        """Load what `save_pretrained` wrote, on the CPU and in evaluation mode.

        Raises:
            ValueError: config.json or the weights do not match this class; the message names the
                keys or weights.
            FileNotFoundError: a file is missing.
        """
        try:
            config = CNCLIPConfig(**model_folder.load_config(folder))
        except TypeError as error:
            raise ValueError(
                f"{Path(folder) / model_folder.CONFIG_FILE} is not the config of a CN-CLIP model: "
                f"{error}"
            ) from error
        model = cls(config)
        checkpoint.copy_weights(model, checkpoint.load_weights(folder), source=str(folder))
        return model.eval()


def load_cn_clip(source: str, num_frames: int, combine: Combine, view: View = "center") -> CNCLIP:
    """Load a model with published weights, on the CPU and in evaluation mode.

    Args:
        source: hub name or folder of a Chinese-CLIP, such as
            `OFA-Sys/chinese-clip-vit-base-patch16`.
        num_frames: frames of a clip.
        combine: see `CNCLIPConfig`.
        view: see `CNCLIPConfig`.

    Raises:
        ValueError: a weight is missing; the message names it.
        OSError: the hub or the folder does not have such a model.
    """
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = ChineseCLIPModel.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True
    )
    pretrained, info = loaded
    clip = pretrained.config.to_diff_dict()
    config = CNCLIPConfig(clip=clip, num_frames=num_frames, combine=combine, view=view)
    model = CNCLIP(config)
    weights = checkpoint.weights_from_files(pretrained.state_dict(), info["missing_keys"])
    checkpoint.copy_weights(model.clip, weights, source=source)
    return model.eval()
