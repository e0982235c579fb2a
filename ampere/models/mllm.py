"""A multimodal language model as embedder, after mPLUG-Video in the paper's comparison (IV-B).

    config = MLLMConfig(source="llava-hf/llava-interleave-qwen-0.5b-hf", embedding_dim=128)
    vectors = load_mllm(config)(frames, texts)  # float32 [B, 128]

With `embedding_dim`, this is mPLUG-Video-lb: a linear layer, to be trained, on the frozen model.
Without, it is mPLUG-Video-0: the hidden state itself.

Supported: any model that transformers' AutoModelForImageTextToText and AutoProcessor load and that
has a causal decoder and a chat template. mPLUG-Video itself is not in transformers, so this
reproduces its method, not its figures.

The network takes texts rather than token ids, since each model family's processor has its own image
placeholders.

Letters: B batch, F frames, L tokens, H width of the language model, D embedding dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from ampere.config.model import View
from ampere.models import checkpoint, model_folder
from ampere.models.base import Network, in_float32

MAX_KEPT_FEATURES = 1_000_000  # in training; each takes 2 to 8 kB

PROMPT = "以上画面取自同一件商品的展示。"
PROMPT_TEXT = "商品文字：{text}"
PROMPT_END = "请判断这是哪一件商品。"


@dataclass(frozen=True, kw_only=True)
class MLLMConfig:
    """What a model is built from; saved as config.json beside the weights of its linear layer.

    Attributes:
        source: hub name or folder of the multimodal model and its processor.
        identity: `model_identity` of the source when the model was made. Loading fails if the
            source has changed since, as its vectors would be another model's. Empty: no check.
        embedding_dim: D, of the linear layer over the hidden state; None: no such layer.
        num_frames: frames of a clip that callers should pass; any number is accepted.
        image_size: height and width that callers should pass, in pixels; the processor scales
            frames to what the model reads.
        view: what of a frame callers should pass; see `ModelSettings`.
        processor: settings of the processor that override the source's, such as
            `{"do_image_splitting": False}` for Idefics3 and SmolVLM, which would otherwise split
            each frame into many.

    Raises:
        ValueError: a number is below 1.
    """

    source: str
    identity: str = ""
    embedding_dim: int | None = None
    num_frames: int = 8
    image_size: int = 224
    view: View = "center"
    processor: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_frames", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")


class MLLMEmbedder(Network):
    """The last token's last hidden state of a frozen multimodal model.

    With `embedding_dim`, a trainable linear layer follows.

    Attributes: those of `ampere.models.base.Network`; `embedding_dim` is H without the linear
    layer, and `max_text_tokens` is 0, as whole texts are read.

    Raises:
        ValueError: the model is an encoder-decoder, or transformers cannot run it without its
            output layer.
    """

    def __init__(
        self, base: PreTrainedModel, processor: ProcessorMixin, config: MLLMConfig
    ) -> None:
        super().__init__()
        if base.config.is_encoder_decoder or base.base_model is base:
            raise ValueError(
                f"{type(base).__name__} has no causal decoder; expected a model whose last token "
                "has a hidden state to embed"
            )
        self.config = config
        self.base = base.requires_grad_(False).eval()
        self.processor = processor
        hidden: int = base.config.get_text_config().hidden_size
        self.probe = nn.Linear(hidden, config.embedding_dim) if config.embedding_dim else None
        self.embedding_dim = config.embedding_dim or hidden
        self.num_frames, self.image_size = config.num_frames, config.image_size
        self.view = config.view
        self.max_text_tokens, self.reads_text = 0, True
        self.is_frozen_encoder = True
        self.kept: dict[bytes, Tensor] = {}  # features by content, of training

    def forward(
        self,
        frames: Tensor,
        texts: Sequence[str | None],
        token_mask: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, height, width], RGB, not normalized. A page's image is read
                once, so its vector differs from that of F equal frames.
            texts: one per row; None is a missing text, which the prompt then omits.
            token_mask: ignored; part of the interface.
            domains: ignored; part of the interface.

        Returns:
            float32 [B, D], each of length 1.

        Raises:
            ValueError: frames have an invalid shape or dtype, or texts and rows differ in number.
        """
        features = self.features(frames, texts)
        vectors = in_float32(self.probe, features) if self.probe else features
        return functional.normalize(vectors, dim=-1)

    @torch.no_grad()
    def features(self, frames: Tensor, texts: Sequence[str | None]) -> Tensor:
        """Last hidden state of the last token, float32 [B, H], for the arguments of `forward`.

        Training keeps features, up to `MAX_KEPT_FEATURES`: the linear layer sees each input once
        an epoch, and the frozen model, which takes nearly all the time, once in all.
        """
        if not self.training:
            return self._encode(frames, texts)
        keys = [_content(*row) for row in zip(frames.cpu().numpy(), texts, strict=True)]
        rows = {key: row for row, key in enumerate(keys) if key not in self.kept}
        new: dict[bytes, Tensor] = {}
        if rows:
            places = list(rows.values())
            encoded = self._encode(frames[places], [texts[place] for place in places])
            # Lossless: the hidden states have the base's dtype.
            new = dict(zip(rows, encoded.to(self.base.dtype).cpu(), strict=True))
        features = [self.kept[key] if key in self.kept else new[key] for key in keys]
        if len(self.kept) + len(new) <= MAX_KEPT_FEATURES:
            self.kept |= new
        return torch.stack(features).to(self.base.device).float()

    def _encode(self, frames: Tensor, texts: Sequence[str | None]) -> Tensor:
        """As `features`, by the frozen model."""
        batch = self.read(frames, texts).to(self.base.device, self.base.dtype)
        # Without the output layer, whose logits for all tokens would take more memory than the
        # rest of the pass.
        hidden = self.base.base_model(**batch, use_cache=False).last_hidden_state
        last = last_tokens(batch["attention_mask"])
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()

    def read(self, frames: Tensor, texts: Sequence[str | None]) -> BatchFeature:
        """The model's inputs: token ids and mask [B, L], and pixels in its family's format."""
        _check_inputs(frames, texts)
        conversations = [self._conversation(*row) for row in zip(frames.cpu(), texts, strict=True)]
        return self.processor.apply_chat_template(
            conversations,
            # The last token is then where the answer would begin, after the whole input.
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    def _conversation(self, frames: Tensor, text: str | None) -> list[dict[str, Any]]:
        """One user message: the frames, uint8 [F, 3, height, width], then the prompt."""
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        lines = [PROMPT, PROMPT_END]
        if text:
            lines.insert(1, PROMPT_TEXT.format(text=self._without_special_tokens(text)))
        content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
        content.append({"type": "text", "text": "\n".join(lines)})
        return [{"role": "user", "content": content}]

    def _without_special_tokens(self, text: str) -> str:
        """Blank out special tokens such as `<image>`, which would request another image."""
        for token in self.processor.tokenizer.get_added_vocab():
            text = text.replace(token, " ")
        return text

    def train(self, mode: bool = True) -> MLLMEmbedder:
        """Set the linear layer's mode; the frozen model stays in evaluation mode, no dropout."""
        super().train(mode)
        self.base.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate; the keys are AMPere's.

        Returns:
            `rest`: the linear layer, if there is one; the other groups are empty.
        """
        rest = list(self.probe.parameters()) if self.probe else []
        return {"text": [], "video": [], "fusion": [], "rest": rest}

    def enable_gradient_checkpointing(self) -> None:
        """Do nothing: no gradient passes through the frozen model."""

    def save_pretrained(
        self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Write config.json and the linear layer's weights to a folder.

        The config names the multimodal model; its weights are not copied.

        Args:
            tokenizer: ignored, as the multimodal model has its own; part of the interface.
        """
        checkpoint.save(folder, self.config, self.probe.state_dict() if self.probe else {})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> MLLMEmbedder:
        """Load what `save_pretrained` wrote and the multimodal model it names; see `load_mllm`.

        Raises:
            ValueError: config.json or the weights do not match this class; the message names the
                keys or weights. Or the multimodal model has changed since training.
            FileNotFoundError: a file is missing.
        """
        try:
            config = MLLMConfig(**model_folder.load_config(folder))
        except TypeError as error:
            raise ValueError(
                f"{Path(folder) / model_folder.CONFIG_FILE} is not the config of an MLLM model: "
                f"{error}"
            ) from error
        if config.identity and config.identity != (
            identity := model_folder.model_identity(config.source)
        ):
            raise ValueError(
                f"the weights of the multimodal model {config.source} have changed: {identity}; "
                f"{folder} was trained with {config.identity}. Train the model again"
            )
        model = load_mllm(config)
        trained = model.probe if model.probe is not None else nn.Module()
        checkpoint.copy_weights(trained, checkpoint.load_weights(folder), source=str(folder))
        return model


def load_mllm(config: MLLMConfig) -> MLLMEmbedder:
    """Load a model with published weights in their own dtype; its linear layer is random.

    The model is on the CPU and in evaluation mode.

    Raises:
        ValueError: a weight is missing (the message names it), or the model is not supported.
        OSError: the hub or the folder does not have such a model.
        ImportError: the processor requires a package, which the message names. Qwen2-VL and
            LLaVA-OneVision require torchvision, SmolVLM num2words too.
    """
    # Typed Any: transformers returns a pair if loading info is asked for.
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        config.source, dtype="auto", output_loading_info=True
    )
    base, info = loaded
    if info["missing_keys"]:  # transformers draws them at random and only warns
        missing = "; ".join(f"missing {name}" for name in sorted(info["missing_keys"]))
        raise ValueError(f"weights of {config.source} do not fit the model: {missing}")
    processor = AutoProcessor.from_pretrained(config.source, **config.processor)
    return MLLMEmbedder(base, processor, config).eval()


def _content(frames: np.ndarray, text: str | None) -> bytes:
    """A hash of one row's input."""
    digest = hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16)
    digest.update(repr((frames.shape, text)).encode())
    return digest.digest()


def last_tokens(mask: Tensor) -> Tensor:
    """Position of each row's last token.

    `[[1, 1, 0], [0, 1, 1]]` gives `[1, 2]`.

    Args:
        mask: int64 [B, L], zero at padding, which may be on either side.

    Returns:
        int64 [B].
    """
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)


def _check_inputs(frames: Tensor, texts: Sequence[str | None]) -> None:
    batch_of_clips = frames.dim() == 5 and frames.shape[2] == 3 and frames.shape[1] > 0
    if frames.dtype != torch.uint8 or not batch_of_clips:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; "
            "expected torch.uint8 [B, F, 3, H, W] with F of at least 1"
        )
    if len(texts) != len(frames):
        raise ValueError(
            f"got {len(texts)} texts for {len(frames)} rows of frames; expected one text, or None, "
            "per row"
        )
