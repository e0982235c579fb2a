"""AMPere: one network that embeds pages, shorts and lives with their text (paper, section III-D).

    model = AMPere(AMPereConfig(sizes=ModelSettings(), vocab_size=21128, pad_token_id=0))
    vectors = model(frames, token_ids, token_mask)  # float32 [B, 128], cosine = dot product

Other settings give COPE (no text, one last layer per domain), QCD (text as query over frame
features), the other fusions and the single-modality ablations: see `ampere.config.systems`.

Letters: B batch, F frames (1 or `num_frames`), L tokens, T width of the text tower, D embedding
dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ampere.config.model import ModelSettings
from ampere.models import checkpoint, model_folder
from ampere.models.base import Network, check_tokens, in_float32
from ampere.models.fusion import FUSIONS
from ampere.models.towers.image_encoder import ImageEncoderConfig
from ampere.models.towers.text import build_bert, build_text_encoder
from ampere.models.video import VideoBranch
from ampere.records import Domain


@dataclass(frozen=True, kw_only=True)
class AMPereConfig:
    """What a model is built from; saved as config.json beside its weights.

    Attributes:
        sizes: sizes and choices of all parts.
        vocab_size: of the text tower's tokenizer.
        pad_token_id: of the same tokenizer.
        use_text: False builds neither text tower nor fusion; the embedding is then a Linear layer
            over the video feature v.
        image_encoder: of the vision tower, if it is an image encoder of transformers.
        text_encoder: fields of the text tower's transformers config, if it is no BERT.
        frozen_tower: name of the frozen vision tower with its weights, whose features are stored;
            empty if it is not frozen.
    """

    sizes: ModelSettings
    vocab_size: int
    pad_token_id: int
    use_text: bool = True
    image_encoder: ImageEncoderConfig | None = None
    text_encoder: dict[str, Any] | None = None
    frozen_tower: str = ""


class AMPere(Network):
    """The network. All domains share its weights, except for the last layer where settings say so.

    Attributes: those of `ampere.models.base.Network`.

    Raises:
        ValueError: neither text nor vision is used.
    """

    def __init__(self, config: AMPereConfig) -> None:
        super().__init__()
        sizes = config.sizes
        if not (config.use_text or sizes.use_vision):
            raise ValueError(
                "use_text and use_vision are both False; a model needs at least one of them"
            )
        self.config = config
        self.embedding_dim = sizes.embedding_dim
        self.image_size, self.view = sizes.image_size, sizes.view
        self.num_frames = sizes.num_frames
        self.reads_frames, self.reads_text = sizes.use_vision, config.use_text
        self.max_text_tokens = sizes.max_text_tokens

        self.video = VideoBranch(sizes, config.image_encoder) if sizes.use_vision else None
        if self.video is not None and sizes.freeze_vision:
            self.feature_width = self.video.tower.width
        self.text = build_text_tower(config) if config.use_text else None
        if self.text is not None and sizes.freeze_text:
            self.text.requires_grad_(False)
        # Replaces the text features of a sample without text.
        learned = config.use_text and sizes.missing_text == "learned"
        self.no_text = nn.Parameter(0.02 * torch.randn(sizes.text_width)) if learned else None
        both = config.use_text and sizes.use_vision
        self.fusion = FUSIONS[sizes.fusion](sizes) if both else None
        last_layers = 1 if sizes.share_last_layer else len(Domain)
        has_bias = self.fusion is None or self.fusion.last_layer_bias
        self.embed: nn.Module = (
            nn.Linear(self._fused_width(), sizes.embedding_dim * last_layers, bias=has_bias)
            if sizes.linear_layer
            else nn.Identity()
        )
        # Replaces the visual features of a sample without frames.
        learned = both and sizes.missing_frames == "learned"
        self.no_frames = nn.Parameter(0.02 * torch.randn(sizes.width)) if learned else None
        self.embeds_alone = both

    def _fused_width(self) -> int:
        """Width of what the last layer reads."""
        if self.fusion is not None:
            return self.fusion.out_width
        return self.config.sizes.width if self.video is not None else self.config.sizes.text_width

    def forward(
        self,
        frames: Tensor,
        token_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        domains: Tensor | None = None,
        *,
        has_frames: Tensor | None = None,
        alone: bool = False,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalized. F is `num_frames`, or 1 for page
                images: one pass of the frame tower then gives the same vector as `num_frames`
                equal frames would.
            token_ids: int64 [B, L] with CLS first. A model without text ignores ids and mask.
            token_mask: bool or int64 [B, L]; zero marks padding. A row of zeros has no text.
            domains: int64 [B], index of each row's domain in `Domain`; only a model with one last
                layer per domain reads it.
            has_frames: bool [B]; False: the sample has no picture, and its frames are black, or
                their stored features zero. None: all have.
            alone: also embed each row's frames alone and its text alone, from the same features.
                Requires `embeds_alone`.

        Returns:
            float32 [B, D], each of length 1. With `alone` [3, B, D]: whole samples, their frames
            alone, their text alone.

        Raises:
            ValueError: frames have an invalid shape or dtype; the model reads text and tokens are
                missing or misshapen; or it has one last layer per domain and `domains` is None.
        """
        if self.video is None:
            fused = self._encode_text(token_ids, token_mask, len(frames))[0][:, 0]
        elif self.fusion is None:
            fused, _ = self.video(frames)
        else:
            visual = self._encode_frames(frames, has_frames)
            text = self._encode_text(token_ids, token_mask, len(frames))
            if alone:
                return self._embed_alone(
                    visual, text, self._missing_text(*text, token_ids), domains
                )
            fused = self.fusion(*visual, *text)
        return functional.normalize(self._last_layer(fused, domains), dim=-1)

    def _embed_alone(
        self,
        visual: tuple[Tensor, Tensor],
        text: tuple[Tensor, Tensor],
        no_text: tuple[Tensor, Tensor],
        domains: Tensor | None,
    ) -> Tensor:
        """Vectors of whole samples, of their frames alone, of their text alone: [3, B, D]."""
        (v, z), (tokens, visible), (no_tokens, no_visible) = visual, text, no_text
        assert self.fusion is not None
        no_v, no_z = self._missing_frames(v, z)
        fused = self.fusion(
            torch.cat([v, v, no_v]),
            torch.cat([z, z, no_z]),
            torch.cat([tokens, no_tokens, tokens]),
            torch.cat([visible, no_visible, visible]),
        )
        domains = None if domains is None else domains.repeat(3)
        vectors = functional.normalize(self._last_layer(fused, domains), dim=-1)
        return vectors.unflatten(0, (3, -1))

    def _encode_frames(self, frames: Tensor, has_frames: Tensor | None) -> tuple[Tensor, Tensor]:
        """Visual features v, float [B, W], and z, float [B, n, W]."""
        assert self.video is not None
        if has_frames is None:
            return self.video(frames)
        if not (self.training or torch.compiler.is_compiling()):
            return self._encode_shown_frames(frames, has_frames)
        v, z = self.video(frames)
        # Black pixels give the features of a black picture; zeros in place of stored features
        # do not.
        if self.no_frames is None and (frames.dtype == torch.uint8 or has_frames.all()):
            return v, z
        no_v, no_z = self._missing_frames(v, z)
        return (
            torch.where(has_frames[:, None], v, no_v),
            torch.where(has_frames[:, None, None], z, no_z),
        )

    def _encode_shown_frames(self, frames: Tensor, has_frames: Tensor) -> tuple[Tensor, Tensor]:
        """As `_encode_frames`, without running the tower for samples that have no frames.

        The tower takes most of the time of a search, and a search by words has no frames.
        """
        assert self.video is not None
        shown = frames[has_frames]
        if len(shown) == len(frames):
            return self.video(frames)
        if not len(shown):
            empty = torch.empty(
                len(frames), self.num_frames, self.video.width, device=frames.device
            )
            return self._missing_frames(empty[:, 0], empty)
        shown_v, shown_z = self.video(shown)
        v = shown_v.new_empty(len(frames), *shown_v.shape[1:])
        z = shown_z.new_empty(len(frames), *shown_z.shape[1:])
        v, z = (missing.clone() for missing in self._missing_frames(v, z))
        v[has_frames], z[has_frames] = shown_v, shown_z
        return v, z

    def _missing_frames(self, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Visual features of samples without frames, in the shapes of v and z."""
        assert self.video is not None
        if self.no_frames is not None:
            missing = self.no_frames.to(v.dtype)
            return missing.expand_as(v), missing.expand_as(z)
        side = self.image_size
        black = torch.zeros(1, 1, 3, side, side, dtype=torch.uint8, device=v.device)
        black_v, black_z = self.video(black)
        return black_v.expand_as(v), black_z.expand_as(z)

    def _missing_text(
        self, tokens: Tensor, visible: Tensor, token_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Text features of samples without text, in the shape of `tokens`, and their mask."""
        if self.no_text is not None:
            visible = torch.arange(tokens.shape[1], device=tokens.device) == 0
            return self.no_text.to(tokens.dtype).expand_as(tokens), visible.expand(tokens.shape[:2])
        assert token_ids is not None
        # The empty string: CLS and SEP, which are the first and the last token of any text.
        is_token = token_ids != self.config.pad_token_id
        last = is_token.sum(dim=1, keepdim=True) - 1
        empty = torch.full_like(token_ids, self.config.pad_token_id)
        empty[:, :1], empty[:, 1:2] = token_ids[:, :1], token_ids.gather(1, last)
        return self._encode_text(empty, torch.zeros_like(token_ids), len(token_ids))

    def _encode_text(
        self, token_ids: Tensor | None, token_mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Text features, float [B, L, T], and which of them may be attended to, bool [B, L]."""
        assert self.text is not None
        token_ids, visible = check_tokens(token_ids, token_mask, batch)
        has_text = visible.any(dim=1, keepdim=True)
        # Attention needs at least one visible token. A row without text shows the tokens of the
        # empty string, CLS and SEP; or its CLS alone, whose feature is replaced below.
        fallback = token_ids != self.config.pad_token_id
        if self.no_text is not None:
            fallback = torch.arange(token_ids.shape[1], device=token_ids.device) == 0
        visible = torch.where(has_text, visible, fallback)
        tokens = self.text(input_ids=token_ids, attention_mask=visible.long()).last_hidden_state
        if self.no_text is not None:
            missing = self.no_text.to(tokens.dtype).expand_as(tokens)
            tokens = torch.where(has_text[..., None], tokens, missing)
        return tokens, visible

    def _last_layer(self, fused: Tensor, domains: Tensor | None) -> Tensor:
        """Float [B, W] -> float32 [B, D], by the last layer of each row's domain."""
        vectors = in_float32(self.embed, fused)
        if self.config.sizes.share_last_layer:
            return vectors
        if domains is None:
            raise ValueError(
                "this model has one last layer per domain, but domains is None; pass int64 [B]"
            )
        by_domain = vectors.unflatten(-1, (len(Domain), -1))
        return by_domain[torch.arange(len(vectors), device=vectors.device), domains]

    def train(self, mode: bool = True) -> AMPere:
        """Set the mode; a frozen text tower stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.text is not None and self.config.sizes.freeze_text:
            self.text.eval()
        return self

    def enable_gradient_checkpointing(self) -> None:
        """Store only the activations between layers of the towers that are trained."""
        if self.video is not None and not self.config.sizes.freeze_vision:
            self.video.tower.enable_gradient_checkpointing()
        if self.text is not None and not self.config.sizes.freeze_text:
            self.text.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate (section IV-B), each in exactly one group.

        Returns:
            `text`: the text tower; `video`: the vision tower with its projection and temporal
            blocks; `fusion`: the fusion blocks; `rest`: all others. Groups of parts that the model
            does not have are empty.
        """
        groups = {
            "text": list(self.text.parameters()) if self.text else [],
            "video": list(self.video.parameters()) if self.video else [],
            "fusion": list(self.fusion.blocks.parameters()) if self.fusion else [],
        }
        grouped = {id(parameter) for group in groups.values() for parameter in group}
        groups["rest"] = [weight for weight in self.parameters() if id(weight) not in grouped]
        return {
            name: [weight for weight in weights if weight.requires_grad]
            for name, weights in groups.items()
        }

    def save_pretrained(
        self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Write model.safetensors, config.json and, if given, the tokenizer's files to a folder."""
        checkpoint.save(folder, self.config, self.state_dict())
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> AMPere:
        """Load what `save_pretrained` wrote, on the CPU and in evaluation mode.

        Raises:
            ValueError: config.json or the weights do not match this class; the message names the
                keys or weights.
            FileNotFoundError: a file is missing.
        """
        model = cls(read_config(folder))
        checkpoint.copy_weights(model, checkpoint.load_weights(folder), source=str(folder))
        return model.eval()


def build_text_tower(config: AMPereConfig) -> Any:
    """Build a `TextTower`: BERT, or the encoder of the config; with random weights."""
    if config.text_encoder is not None:
        return build_text_encoder(config.text_encoder)
    return build_bert(config.sizes, config.vocab_size, config.pad_token_id)


def read_config(folder: Path | str) -> AMPereConfig:
    """Read the config that `save_pretrained` wrote.

    Raises:
        ValueError: config.json has other keys than `AMPereConfig` and `ModelSettings`.
    """
    fields = model_folder.load_config(folder)
    try:
        sizes, encoder = ModelSettings(**fields["sizes"]), fields.get("image_encoder")
        image_encoder = ImageEncoderConfig(**encoder) if encoder else None
        return AMPereConfig(**fields | {"sizes": sizes, "image_encoder": image_encoder})
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{Path(folder) / model_folder.CONFIG_FILE} is not the config of an AMPere model: "
            f"{error}"
        ) from error
