"""AMPere: one network that embeds pages, short videos and live clips with their texts (paper, section III-D).

    model = AMPere(AMPereConfig(sizes=ModelSettings(), vocab_size=21128, pad_token_id=0))
    vectors = model(frames, token_ids, token_mask)  # float32 [B, 128], cosine similarity = dot product

Its settings also give COPE (no text, a last layer per domain), QCD (text as query over frame features), the other
fusions and the one-modality ablations: see ampere.systems.

Letters: B batch, F frames (1 or `num_frames`), L tokens, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from ampere.config.model import ModelSettings
from ampere.models import checkpoint
from ampere.models import model_folder as saved
from ampere.models.card import CARD_FILE, model_card
from ampere.models.fusion import FUSIONS
from ampere.models.video import VideoBranch
from ampere.records import Domain


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
    """The network. One set of weights serves all three domains, but for the last layer if it is not shared.

    Attributes: those of `ampere.models.networks.Network`.

    Raises:
        ValueError: neither text nor vision is used.
    """

    def __init__(self, config: AMPereConfig) -> None:
        super().__init__()
        sizes = config.sizes
        if not (config.use_text or sizes.use_vision):
            raise ValueError("use_text and use_vision are both False; a model needs one of them")
        self.config = config
        self.video = VideoBranch(sizes) if sizes.use_vision else None
        self.text = build_text_tower(config) if config.use_text else None
        # Stands for the CLS feature of a sample whose text is missing.
        learned = config.use_text and sizes.missing_text == "learned"
        self.no_text = nn.Parameter(0.02 * torch.randn(sizes.text_width)) if learned else None
        both = config.use_text and sizes.use_vision
        self.fusion = FUSIONS[sizes.fusion](sizes) if both else None
        width = (
            self.fusion.out_width
            if self.fusion
            else sizes.width
            if self.video
            else sizes.text_width
        )
        self.embed = nn.Linear(
            width, sizes.embedding_dim * (1 if sizes.share_last_layer else len(Domain))
        )
        self.embedding_dim, self.max_text_tokens = sizes.embedding_dim, sizes.max_text_tokens
        self.image_size, self.num_frames, self.reads_text = (
            sizes.image_size,
            sizes.num_frames,
            config.use_text,
        )

    def forward(
        self,
        frames: Tensor,
        token_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalised. F is `num_frames`, or 1 for page images: one pass of
                the frame tower then gives the same vector as `num_frames` equal frames would.
            token_ids: int64 [B, L] with CLS first. A model without text ignores it and `token_mask`.
            token_mask: bool or int64 [B, L]; zero marks padding. A row of zeros alone has no text.
            domains: int64 [B], place of each row's domain in `Domain`; only a model whose last layer is not shared
                reads it.

        Returns:
            float32 [B, D], each of length 1.

        Raises:
            ValueError: the frames do not suit the model, it reads text and the tokens are missing or misshapen, or it
                has a last layer per domain and no domains are given.
        """
        if self.video is None:
            fused = self._read(token_ids, token_mask, len(frames))[0][:, 0]
        elif self.fusion is None:
            fused, _ = self.video(frames)
        else:
            v, z = self.video(frames)
            fused = self.fusion(v, z, *self._read(token_ids, token_mask, len(frames)))
        # float32 also under autocast: similarities of bfloat16 vectors would tie.
        return functional.normalize(self._last_layer(fused, domains).float(), dim=-1)

    def _read(
        self, token_ids: Tensor | None, token_mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """The text tower's features, float [B, L, T], and bool [B, L] of those that may be attended to."""
        assert self.text is not None
        token_ids, visible = _check_tokens(token_ids, token_mask, batch)
        has_text = visible.any(dim=1, keepdim=True)
        # A row without text reads as the empty string, CLS and SEP; or shows its CLS alone, which is replaced below.
        shown = token_ids != self.config.pad_token_id
        if self.no_text is not None:
            shown = torch.arange(token_ids.shape[1], device=token_ids.device) == 0
        visible = torch.where(has_text, visible, shown)
        tokens = self.text(input_ids=token_ids, attention_mask=visible.long()).last_hidden_state
        if self.no_text is not None:
            missing = self.no_text.to(tokens.dtype).expand_as(tokens)
            tokens = torch.where(has_text[..., None], tokens, missing)
        return tokens, visible

    def _last_layer(self, fused: Tensor, domains: Tensor | None) -> Tensor:
        vectors = self.embed(fused)
        if self.config.sizes.share_last_layer:
            return vectors
        if domains is None:
            raise ValueError("this model has a last layer per domain: give domains, int64 [B]")
        return vectors.unflatten(-1, (len(Domain), -1))[
            torch.arange(len(vectors), device=vectors.device), domains
        ]

    def enable_gradient_checkpointing(self) -> None:
        """Keep the activations of the towers' borders alone and compute the others again in the backward pass."""
        for tower in (self.video.tower if self.video else None, self.text):
            if tower is not None:
                tower.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": False}
                )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by learning rate (section IV-B); every one is in exactly one group.

        Returns:
            `text`: the text tower; `video`: X-CLIP with its projection and temporal blocks; `fusion`: the fusion
            blocks; `rest`: all else. Parts that the model lacks are empty.
        """
        groups = {
            "text": list(self.text.parameters()) if self.text else [],
            "video": list(self.video.parameters()) if self.video else [],
            "fusion": list(self.fusion.blocks.parameters()) if self.fusion else [],
        }
        placed = {id(parameter) for group in groups.values() for parameter in group}
        return groups | {
            "rest": [parameter for parameter in self.parameters() if id(parameter) not in placed]
        }

    def save_pretrained(
        self,
        folder: Path | str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write model.safetensors, config.json and a model card to a folder, and the tokenizer's files if one is given.

        Args:
            facts: what the card tells besides; see `ampere.models.card.model_card`.
        """
        checkpoint.save(folder, self.config, self.state_dict())
        parameters = sum(weight.numel() for weight in self.parameters())
        (Path(folder) / CARD_FILE).write_text(
            model_card(self.config, parameters, facts), encoding="utf-8"
        )
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


def read_config(folder: Path | str) -> AMPereConfig:
    """The config that `save_pretrained` wrote to a folder.

    Raises:
        ValueError: config.json has other keys than `AMPereConfig` and `ModelSettings`.
    """
    fields = saved.load_config(folder)
    try:
        return AMPereConfig(**fields | {"sizes": ModelSettings(**fields["sizes"])})
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{Path(folder) / saved.CONFIG_FILE} is not of an AMPere model: {error}"
        ) from error


def _check_tokens(
    token_ids: Tensor | None, token_mask: Tensor | None, batch: int
) -> tuple[Tensor, Tensor]:
    """The token ids, and bool [B, L] of those that are no padding."""
    if token_ids is None or token_mask is None:
        raise ValueError(
            "this model reads text: give token_ids and token_mask (an empty text still has CLS)"
        )
    if token_ids.shape != token_mask.shape or len(token_ids) != batch:
        raise ValueError(
            f"token_ids are {list(token_ids.shape)}, token_mask {list(token_mask.shape)} and frames {batch} rows; "
            "give ids and mask of one shape [B, L], with a row per row of frames"
        )
    return token_ids, token_mask.to(torch.bool)
