"""CN-CLIP and its kin as comparison systems: CLIP features of frames and text, joined without a network of our own
(paper, section IV-B).

    model = load_cn_clip("OFA-Sys/chinese-clip-vit-base-patch16", num_frames=8, combine="mean")
    vectors = model(frames, token_ids, token_mask)  # float32 [B, 512]

| system | combine | text |
|---|---|---|
| CN-CLIP | visual | none |
| CN-CLIP-m0, -m1, -m1-finetune | mean | raw transcript; LLM summary |
| RICE | concat | raw transcript |

Letters: B batch, F frames (1 or `num_frames`), L tokens, C CLIP's projection dimension, D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ChineseCLIPConfig, ChineseCLIPModel, PreTrainedTokenizerBase

from ampere.config.model import Combine
from ampere.models import checkpoint
from ampere.models import model_folder as saved
from ampere.models.ampere import _check_tokens
from ampere.models.card import write_comparison_card
from ampere.models.pretrained import _found
from ampere.models.video import check_frames, normalise_pixels

CLIP_MEAN = (
    0.48145466,
    0.4578275,
    0.40821073,
)  # of the pixels that the published weights were trained with
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_TEXT_TOKENS = (
    52  # the longest text that the published weights were trained with, CLS and SEP included
)


@dataclass(frozen=True, kw_only=True)
class CNCLIPConfig:
    """What a model is built from; saved as config.json beside its weights.

    Attributes:
        clip: fields of a ChineseCLIPConfig, as its `to_diff_dict()` gives them.
        num_frames: of a clip; a page has one.
        combine: visual: the video feature alone. mean: the direction of video and text feature together. concat: both
            side by side, so that a dot product is the mean of the two similarities.

    Raises:
        ValueError: `num_frames` or `combine` is none of these.
    """

    clip: dict[str, Any]
    num_frames: int
    combine: Combine

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}; it must be at least 1")
        if self.combine not in get_args(Combine):
            raise ValueError(
                f"combine is {self.combine!r}; give one of {', '.join(get_args(Combine))}"
            )


class CNCLIP(nn.Module):
    """Chinese-CLIP over frames and text, in the place of AMPere.

    What takes no part in the embedding is frozen, since DDP waits for the gradient of every parameter that is not:
    CLIP's own temperature (our losses have theirs), and the text tower under `visual`.

    Attributes:
        embedding_dim: D; C, and 2 C under `concat`.
        image_size: height and width of the frames, in pixels.
        num_frames: of a clip.
        max_text_tokens: of a text; what is longer is cut.
        reads_text: whether token ids are needed.
    """

    def __init__(self, config: CNCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.clip = ChineseCLIPModel(ChineseCLIPConfig.from_dict(config.clip))
        self.clip.logit_scale.requires_grad_(False)
        self.num_frames = config.num_frames
        positions: int = self.clip.config.text_config.max_position_embeddings
        self.max_text_tokens = min(MAX_TEXT_TOKENS, positions)
        self.image_size: int = self.clip.config.vision_config.image_size
        self.embedding_dim: int = self.clip.config.projection_dim * (
            2 if config.combine == "concat" else 1
        )
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
            frames: uint8 [B, F, 3, H, W], RGB, not normalised. F is `num_frames`, or 1 for page images, whose vector
                is that of `num_frames` equal frames.
            token_ids: int64 [B, L] with CLS first. `visual` ignores all that concerns text.
            token_mask: bool or int64 [B, L]; zero marks padding. A row of zeros alone has no text.
            domains: ignored; there for the sake of AMPere's interface.

        Returns:
            float32 [B, D]. A row without text is the video feature alone, under `concat` followed by zeros. Each row
            has length 1, but for those rows of `concat`: the square root of 1/2.

        Raises:
            ValueError: the frames do not suit the model, or it reads text and the tokens are missing or misshapen.
        """
        check_frames(frames, self.image_size, self.num_frames)
        video = self._see(frames)
        if not self.reads_text:
            return video
        text, present = self._read(token_ids, token_mask, len(frames))
        text = torch.where(present[:, None], text, 0.0)
        if self.config.combine == "mean":
            return functional.normalize(video + text, dim=-1)
        # Not normalised again. So a dot product is the average of the two similarities of RICE for all pairs of rows,
        # a missing text's counting zero, and a query without text ranks all by their pictures. At length 1 a row
        # without text would be favoured: by sqrt(2) over an equal one with text.
        return torch.cat([video, text], dim=-1) / math.sqrt(2)

    def _see(self, frames: Tensor) -> Tensor:
        """The video feature (section IV-B): the mean over the frames' unit features, float32 [B, C] of length 1."""
        pixels = normalise_pixels(frames.flatten(0, 1), CLIP_MEAN, CLIP_STD)
        features = self.clip.get_image_features(pixel_values=pixels).pooler_output
        # float32 also under autocast: similarities of bfloat16 vectors would tie.
        features = functional.normalize(features.float(), dim=-1).unflatten(0, frames.shape[:2])
        return functional.normalize(features.mean(dim=1), dim=-1)

    def _read(
        self, token_ids: Tensor | None, token_mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """The text feature, float32 [B, C] of length 1, and bool [B] of the rows whose text is there."""
        token_ids, visible = _check_tokens(token_ids, token_mask, batch)
        positions = self.clip.config.text_config.max_position_embeddings
        if token_ids.shape[1] > positions:
            raise ValueError(
                f"texts have {token_ids.shape[1]} tokens; the text tower has {positions} positions"
            )
        present = visible.any(dim=1)
        # Attention over nothing may give NaN, whose gradient would pass torch.where; so a missing text shows all.
        visible = visible | ~present[:, None]
        features = self.clip.get_text_features(
            input_ids=token_ids, attention_mask=visible.long()
        ).pooler_output
        return functional.normalize(features.float(), dim=-1), present

    def enable_gradient_checkpointing(self) -> None:
        """Keep the activations of the layers' borders alone and compute the others again in the backward pass."""
        self.clip.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters that are trained, by learning rate; the keys are AMPere's.

        Returns:
            `text` and `video`: the towers with their projections; `fusion` and `rest` are empty, as is `text` where
            no text is read.
        """
        clip = self.clip
        text = [*clip.text_model.parameters(), *clip.text_projection.parameters()]
        video = [*clip.vision_model.parameters(), *clip.visual_projection.parameters()]
        return {"text": text if self.reads_text else [], "video": video, "fusion": [], "rest": []}

    def save_pretrained(
        self,
        folder: Path | str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write model.safetensors, config.json and a model card to a folder, and the tokenizer's files if one is given.

        Args:
            facts: what the card tells besides; see `ampere.models.card.comparison_card`.
        """
        checkpoint.save(folder, self.config, self.state_dict())
        write_comparison_card(
            folder, type(self).__name__, {"Combination": self.config.combine}, facts
        )
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> CNCLIP:
        """Load what `save_pretrained` wrote, on the CPU and in evaluation mode.

        Raises:
            ValueError: config.json or the weights do not fit this class; the message names the keys or weights.
            FileNotFoundError: a file is not there.
        """
        try:
            config = CNCLIPConfig(**saved.load_config(folder))
        except TypeError as error:
            raise ValueError(
                f"{Path(folder) / saved.CONFIG_FILE} is not of a CN-CLIP model: {error}"
            ) from error
        model = cls(config)
        checkpoint.copy_weights(model, checkpoint.load_weights(folder), source=str(folder))
        return model.eval()


def load_cn_clip(source: str, num_frames: int, combine: Combine) -> CNCLIP:
    """A model with published weights, on the CPU and in evaluation mode.

    Args:
        source: hub name or folder of a Chinese-CLIP, such as `OFA-Sys/chinese-clip-vit-base-patch16`.
        num_frames: of a clip.
        combine: see `CNCLIPConfig`.

    Raises:
        ValueError: a weight is missing (the message names it).
        OSError: the hub or the folder does not have such a model.
    """
    loaded: Any = ChineseCLIPModel.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True
    )
    pretrained, info = loaded
    model = CNCLIP(
        CNCLIPConfig(clip=pretrained.config.to_diff_dict(), num_frames=num_frames, combine=combine)
    )
    checkpoint.copy_weights(
        model.clip, _found(pretrained.state_dict(), info["missing_keys"]), source=source
    )
    return model.eval()
