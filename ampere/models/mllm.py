"""A multimodal language model as an embedder: the part of mPLUG-Video in the paper's comparison (section IV-B).

    model = load_mllm(MLLMConfig(source="llava-hf/llava-interleave-qwen-0.5b-hf"))  # as mPLUG-Video-0
    model = load_mllm(MLLMConfig(source=..., embedding_dim=128))  # as mPLUG-Video-lb, its linear layer to be trained
    vectors = model(frames, texts)  # float32 [B, D]

Any model stands in that transformers' AutoModelForImageTextToText and AutoProcessor load, has a causal decoder and a
chat template. mPLUG-Video itself is not in transformers, so its figures cannot be had here, only its method.

It takes texts rather than token ids, since each family's processor has its own way of marking images among words.

Letters: B batch, F frames, L tokens, H width of the language model, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
)

from ampere.models import checkpoint
from ampere.models import model_folder as saved
from ampere.models.card import write_comparison_card

PROMPT = "以上画面取自同一件商品的展示。"
PROMPT_TEXT = "商品文字：{text}"
PROMPT_END = "请判断这是哪一件商品。"


@dataclass(frozen=True, kw_only=True)
class MLLMConfig:
    """What a model is built from; saved as config.json beside the weights of its linear layer.

    Attributes:
        source: hub name or folder of the multimodal model and its processor.
        identity: what the source was when the model was made, by `model_identity`, so that the vectors of other weights
            are those of another model; empty: not looked at.
        embedding_dim: of the linear layer over the hidden state; None: the hidden state itself.
        num_frames: of a clip, as the caller should give them; any number is read.
        image_size: height and width that the caller should give; the processor scales them to what the model reads.
        processor: settings of the processor that differ from the source's, such as `{"do_image_splitting": False}`
            for Idefics3 and SmolVLM, which else cut each frame into many.

    Raises:
        ValueError: a number is below 1.
    """

    source: str
    identity: str = ""
    embedding_dim: int | None = None
    num_frames: int = 8
    image_size: int = 224
    processor: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_frames", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")


class MLLMEmbedder(nn.Module):
    """The last token's last hidden state of a frozen multimodal model, and perhaps a trained linear layer of it.

    Attributes:
        embedding_dim: D; H without the linear layer.
        image_size: see `MLLMConfig`.
        num_frames: see `MLLMConfig`.
        max_text_tokens: 0; the texts themselves are read, whole.
        reads_text: True.

    Raises:
        ValueError: the model has an encoder and a decoder, or transformers cannot run it without its output layer.
    """

    def __init__(
        self, base: PreTrainedModel, processor: ProcessorMixin, config: MLLMConfig
    ) -> None:
        super().__init__()
        if base.config.is_encoder_decoder or base.base_model is base:
            raise ValueError(
                f"{type(base).__name__} has no causal decoder whose last token could be taken"
            )
        self.config = config
        self.base = base.requires_grad_(False).eval()
        self.processor = processor
        hidden: int = base.config.get_text_config().hidden_size
        self.probe = nn.Linear(hidden, config.embedding_dim) if config.embedding_dim else None
        self.embedding_dim = config.embedding_dim or hidden
        self.num_frames, self.image_size = config.num_frames, config.image_size
        self.max_text_tokens, self.reads_text = 0, True

    def forward(
        self,
        frames: Tensor,
        texts: Sequence[str | None],
        token_mask: None = None,
        domains: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, H, W], RGB, not normalised. A page's one image is read once, and so is not the same
                as F equal frames.
            texts: B; None is a missing text, of which the prompt then does not speak.
            token_mask, domains: ignored; there for the sake of AMPere's interface.

        Returns:
            float32 [B, D], each of length 1.

        Raises:
            ValueError: the frames are no such tensor, or there is not one text per row.
        """
        features = self.features(frames, texts)
        # float32 also under autocast: similarities of bfloat16 vectors would tie.
        return functional.normalize(
            (self.probe(features) if self.probe else features).float(), dim=-1
        )

    @torch.no_grad()
    def features(self, frames: Tensor, texts: Sequence[str | None]) -> Tensor:
        """The last token's last hidden state, float32 [B, H], for the arguments of `forward`.

        Equal frames and texts have equal features, in training too; but training crops its frames anew in each epoch,
        so there is nothing to keep from one to the next.
        """
        batch = self.read(frames, texts).to(self.base.device, self.base.dtype)
        # Without the output layer: its logits of all tokens and words would take more memory than all the rest.
        hidden = self.base.base_model(**batch, use_cache=False).last_hidden_state
        last = last_tokens(batch["attention_mask"])
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()

    def read(self, frames: Tensor, texts: Sequence[str | None]) -> BatchFeature:
        """The model's inputs: token ids and mask [B, L], and pixels in the form that its family wants."""
        _check(frames, texts)
        conversations = [self._conversation(*row) for row in zip(frames.cpu(), texts, strict=True)]
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,  # so the last token is where the answer would begin, with all read
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    def _conversation(self, frames: Tensor, text: str | None) -> list[dict[str, Any]]:
        pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        lines = (
            [PROMPT, PROMPT_TEXT.format(text=self._plain(text)), PROMPT_END]
            if text
            else [PROMPT, PROMPT_END]
        )
        content = [{"type": "image", "image": picture} for picture in pictures]
        return [{"role": "user", "content": [*content, {"type": "text", "text": "\n".join(lines)}]}]

    def _plain(self, text: str) -> str:
        """The text without what the tokenizer takes as marks, such as `<image>`, which would ask for another image."""
        for mark in self.processor.tokenizer.get_added_vocab():
            text = text.replace(mark, " ")
        return text

    def train(self, mode: bool = True) -> MLLMEmbedder:
        """Training mode for the linear layer alone: the frozen model keeps giving the same features."""
        super().train(mode)
        self.base.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters that are trained, by learning rate; the keys are AMPere's.

        Returns:
            `rest`: the linear layer, if there is one; the other groups are empty.
        """
        return {
            "text": [],
            "video": [],
            "fusion": [],
            "rest": list(self.probe.parameters()) if self.probe else [],
        }

    def enable_gradient_checkpointing(self) -> None:
        """Nothing: no gradient passes the frozen model."""

    def save_pretrained(
        self, folder: Path | str, tokenizer: None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Write config.json, the linear layer's weights and a model card to a folder; the multimodal model is named,
        not copied.

        Args:
            tokenizer: there for the sake of AMPere's interface; the multimodal model has its own.
            facts: what the card tells besides; see `ampere.models.card.comparison_card`.
        """
        checkpoint.save(folder, self.config, self.probe.state_dict() if self.probe else {})
        write_comparison_card(
            folder, type(self).__name__, {"Language model": self.config.source}, facts
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> MLLMEmbedder:
        """Load what `save_pretrained` wrote, and the multimodal model that it names; see `load_mllm`.

        Raises:
            ValueError: config.json or the weights do not fit this class; the message names the keys or weights. Or the
                multimodal model is not what it was.
            FileNotFoundError: a file is not there.
        """
        try:
            config = MLLMConfig(**saved.load_config(folder))
        except TypeError as error:
            raise ValueError(
                f"{Path(folder) / saved.CONFIG_FILE} is not of an MLLM model: {error}"
            ) from error
        if config.identity and (found := saved.model_identity(config.source)) != config.identity:
            raise ValueError(
                f"{folder} is of the multimodal model {config.identity}, and {config.source} is {found} now; train anew"
            )
        model = load_mllm(config)
        checkpoint.copy_weights(
            model.probe or nn.Module(), checkpoint.load_weights(folder), source=str(folder)
        )
        return model


def load_mllm(config: MLLMConfig) -> MLLMEmbedder:
    """A model with published weights, in their own type, on the CPU and in evaluation mode; the linear layer is random.

    Raises:
        ValueError: a weight is missing (the message names it), or the model is of no suitable kind.
        OSError: the hub or the folder does not have such a model.
        ImportError: its processor needs a package, which the message names. Qwen2-VL and LLaVA-OneVision need
            torchvision, SmolVLM num2words too.
    """
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        config.source, dtype="auto", output_loading_info=True
    )
    base, info = loaded
    if info["missing_keys"]:  # transformers draws them at random, with only a warning
        missing = "; ".join(f"missing {name}" for name in sorted(info["missing_keys"]))
        raise ValueError(f"weights of {config.source} do not fit the model: {missing}")
    return MLLMEmbedder(
        base, AutoProcessor.from_pretrained(config.source, **config.processor), config
    ).eval()


def last_tokens(mask: Tensor) -> Tensor:
    """Position of each row's last token, int64 [B], from a mask [B, L] that is zero at padding, on whichever side.

    `[[1, 1, 0], [0, 1, 1]]` gives `[1, 2]`.
    """
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)


def _check(frames: Tensor, texts: Sequence[str | None]) -> None:
    if (
        frames.dtype != torch.uint8
        or frames.dim() != 5
        or frames.shape[2] != 3
        or frames.shape[1] == 0
    ):
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; the model takes torch.uint8 [B, F, 3, H, W]"
        )
    if len(texts) != len(frames):
        raise ValueError(
            f"{len(texts)} texts and frames of {len(frames)} rows; give one text, or None, per row"
        )
