"""AMPere: one network that embeds pages, short videos and live clips with their texts (paper, section III-D).

    model = AMPere(AMPereConfig(sizes=ModelSettings(), vocab_size=21128, pad_token_id=0))
    vectors = model(frames, token_ids, token_mask)  # float32 [B, 128], cosine similarity = dot product

Letters: B batch, F frames (1 or `num_frames`), L tokens, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from ampere.config import ModelSettings
from ampere.models import checkpoint
from ampere.models.fusion import Fusion
from ampere.models.video import VideoBranch


@dataclass(frozen=True, kw_only=True)
class AMPereConfig:
    """What a model is built from; saved as config.json beside its weights.

    Attributes:
        sizes: of all parts.
        vocab_size: of the tokenizer that the text tower reads.
        pad_token_id: of the same tokenizer.
        use_text: False leaves the text tower and the fusion out; the embedding is then a Linear layer of v.
    """

    sizes: ModelSettings
    vocab_size: int
    pad_token_id: int
    use_text: bool = True


class AMPere(nn.Module):
    """The network. One set of weights serves all three domains."""

    def __init__(self, config: AMPereConfig) -> None:
        super().__init__()
        sizes = config.sizes
        self.config = config
        self.video = VideoBranch(sizes)
        self.text = build_text_tower(config) if config.use_text else None
        self.fusion = build_fusion(sizes) if config.use_text else None
        self.embed = nn.Linear(sizes.width, sizes.embedding_dim)

    def forward(self, frames: Tensor, token_ids: Tensor | None = None, token_mask: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalised. F is `num_frames`, or 1 for page images: one pass of
                the frame tower then gives the same vector as `num_frames` equal frames would.
            token_ids: int64 [B, L] with CLS first. A model without text ignores it and `token_mask`.
            token_mask: bool or int64 [B, L]; zero marks padding.

        Returns:
            float32 [B, D], each of length 1.

        Raises:
            ValueError: the frames do not suit the model, or it reads text and the tokens are missing or misshapen.
        """
        fused, z = self.video(frames)
        if self.text is not None and self.fusion is not None:
            token_ids, visible = _check_tokens(token_ids, token_mask, len(frames))
            tokens = self.text(input_ids=token_ids, attention_mask=visible.long()).last_hidden_state
            fused = self.fusion(fused, z, tokens, visible)
        # float32 also under autocast: similarities of bfloat16 vectors would tie.
        return functional.normalize(self.embed(fused).float(), dim=-1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by learning rate (section IV-B); every one is in exactly one group.

        Returns:
            `text`: the pretrained text tower; `video`: X-CLIP and its projection; `fusion`: the fusion blocks;
            `rest`: what starts from nothing. Without text, `text` and `fusion` are empty.
        """
        groups = {
            "text": list(self.text.parameters()) if self.text else [],
            "video": [*self.video.tower.parameters(), *self.video.projection.parameters()],
            "fusion": list(self.fusion.blocks.parameters()) if self.fusion else [],
        }
        placed = {id(parameter) for group in groups.values() for parameter in group}
        return groups | {"rest": [parameter for parameter in self.parameters() if id(parameter) not in placed]}

    def save_pretrained(self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write model.safetensors and config.json to a folder, and the tokenizer's files if one is given."""
        checkpoint.save(folder, self.config, self.state_dict())
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> AMPere:
        """Load what `save_pretrained` wrote, on the CPU and in evaluation mode.

        Raises:
            ValueError: config.json or the weights do not fit this class; the message names the keys or weights.
            FileNotFoundError: a file is not there.
        """
        model = cls(read_config(folder))
        checkpoint.copy_weights(model, checkpoint.load_weights(folder), source=str(folder))
        return model.eval()


def build_text_tower(config: AMPereConfig) -> BertModel:
    """The text branch: BERT as `hfl/rbt6` has it (512 positions, MLP of 4 widths), without the pooler."""
    sizes = config.sizes
    return BertModel(
        BertConfig(
            vocab_size=config.vocab_size,
            pad_token_id=config.pad_token_id,
            hidden_size=sizes.text_width,
            intermediate_size=4 * sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
        ),
        add_pooling_layer=False,
    )


def build_fusion(sizes: ModelSettings) -> Fusion:
    """The fusion of the model's sizes."""
    return Fusion(
        text_width=sizes.text_width,
        width=sizes.width,
        layers=sizes.fusion_layers,
        heads=sizes.heads,
        mlp_width=sizes.mlp_width,
    )


def read_config(folder: Path | str) -> AMPereConfig:
    """The config that `save_pretrained` wrote to a folder.

    Raises:
        ValueError: config.json has other keys than `AMPereConfig` and `ModelSettings`.
    """
    fields = checkpoint.load_config(folder)
    try:
        return AMPereConfig(**fields | {"sizes": ModelSettings(**fields["sizes"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{Path(folder) / checkpoint.CONFIG_FILE} is not of an AMPere model: {error}") from error


def _check_tokens(token_ids: Tensor | None, token_mask: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
    """The token ids, and bool [B, L] of those that are no padding."""
    if token_ids is None or token_mask is None:
        raise ValueError("this model reads text: give token_ids and token_mask (an empty text still has CLS)")
    if token_ids.shape != token_mask.shape or len(token_ids) != batch:
        raise ValueError(
            f"token_ids are {list(token_ids.shape)}, token_mask {list(token_mask.shape)} and frames {batch} rows; "
            "give ids and mask of one shape [B, L], with a row per row of frames"
        )
    return token_ids, token_mask.to(torch.bool)
