"""Off-the-shelf embedders of sentence-transformers: EmbeddingGemma 2, Qwen3-VL-Embedding, SigLIP 2.

    config = SentenceEmbedderConfig(source="google/embeddinggemma-2", truncate_dim=256)
    vectors = load_sentence_embedder(config)(frames, texts)  # float32 [B, 256]

They are used as they are, without training. A clip's visual vector is the normalized mean of its
frames' vectors; a sample's vector is the normalized mean of its visual and its text vector.

Letters: B batch, F frames, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ampere.config.model import View
from ampere.models import checkpoint, model_folder
from ampere.models.base import Network
from ampere.models.picture_processors import picture_processors

# Their text vector is the last position's, which must be padding at full length, as in training.
# Padded to the longest text of the batch, it would depend on the other texts.
PADDED_TEXT = ("siglip", "siglip2")


@dataclass(frozen=True, kw_only=True)
class SentenceEmbedderConfig:
    """What a model is built from; saved as config.json.

    Attributes:
        source: hub name or folder.
        identity: `model_identity` of the source when the model was saved; loading fails if the
            source has changed since. Empty: no check.
        use_text: False for frames alone.
        truncate_dim: D; 0: all dimensions of the source.
        num_frames: frames of a clip.
        image_size: height and width of the frames that callers pass, in pixels.
        view: what of a frame callers should pass; see `ModelSettings`.
    """

    source: str
    identity: str = ""
    use_text: bool = True
    truncate_dim: int = 0
    num_frames: int = 8
    image_size: int = 224
    view: View = "center"


class SentenceEmbedder(Network):
    """A frozen SentenceTransformer over frames and texts.

    Attributes: those of `ampere.models.base.Network`; `max_text_tokens` is 0, as whole texts are
    read.

    Args:
        base: a `SentenceTransformer`.
        config: of this model.

    Raises:
        ValueError: the source does not encode images, or not texts where they are read; or it has
            fewer dimensions than `truncate_dim`.
    """

    def __init__(self, base: Any, config: SentenceEmbedderConfig) -> None:
        super().__init__()
        wanted = ["image", *(["text"] if config.use_text else [])]
        if lacking := [kind for kind in wanted if not base.supports(kind)]:
            raise ValueError(
                f"{config.source} does not encode {' or '.join(lacking)} input; it encodes "
                f"{', '.join(map(str, base.modalities))}. Give an embedder of images and text"
            )
        dimensions = base.get_embedding_dimension()
        if config.truncate_dim > dimensions:
            raise ValueError(
                f"model.truncate_dim is {config.truncate_dim}; {config.source} has {dimensions} "
                "dimensions"
            )
        self.config = config
        self.base = base.requires_grad_(False).eval()
        self.embedding_dim = config.truncate_dim or dimensions
        self.num_frames, self.image_size = config.num_frames, config.image_size
        self.view = config.view
        self.max_text_tokens, self.reads_text = 0, config.use_text
        self.embeds_alone = config.use_text

    def forward(
        self,
        frames: Tensor,
        texts: Sequence[str | None] | None = None,
        token_mask: Tensor | None = None,
        domains: Tensor | None = None,
        *,
        has_frames: Tensor | None = None,
        alone: bool = False,
    ) -> Tensor:
        """Embed a batch.

        Args:
            frames: uint8 [B, F, 3, height, width], RGB, not normalized.
            texts: one per row; None is a missing text.
            token_mask: ignored; part of the interface.
            domains: ignored; part of the interface.
            has_frames: bool [B]; False: the row has a text alone. None: all have frames.
            alone: also return the vectors of frames alone and of texts alone.

        Returns:
            float32 [B, D], each of length 1. With `alone` [3, B, D]: whole samples, their frames
            alone, their text alone; zero where a row has no frames or no text.
        """
        visual = self._encode_frames(frames, has_frames)
        if not self.reads_text or texts is None:
            return visual
        text = self._encode_texts(texts, visual)
        whole = functional.normalize(visual + text, dim=-1)
        return torch.stack([whole, visual, text]) if alone else whole

    def _encode_frames(self, frames: Tensor, has_frames: Tensor | None) -> Tensor:
        """uint8 [B, F, 3, height, width] -> float32 [B, D] of length 1; zero without frames."""
        if has_frames is not None:
            vectors = torch.zeros(len(frames), self.embedding_dim, device=frames.device)
            if has_frames.any():
                vectors[has_frames] = self._encode_frames(frames[has_frames], None)
            return vectors
        images = [
            Image.fromarray(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames.flatten(0, 1)
        ]
        # Each in a list of its own: EmbeddingGemma 2's processor takes a plain list of pictures for
        # one input of many.
        vectors = self._encode([{"image": [image]} for image in images])
        vectors = vectors.unflatten(0, frames.shape[:2])
        return functional.normalize(vectors.mean(dim=1), dim=-1)

    def _encode_texts(self, texts: Sequence[str | None], like: Tensor) -> Tensor:
        """Vectors of texts, in the shape of `like`; zero for a missing text."""
        vectors = torch.zeros_like(like)
        words = {row: self._without_special_tokens(text) for row, text in enumerate(texts) if text}
        if words:
            # Not as plain strings: one that is the path or the address of a picture would be read
            # as that picture.
            vectors[list(words)] = self._encode([{"text": text} for text in words.values()])
        return vectors

    def _without_special_tokens(self, text: str) -> str:
        """Blank out special tokens such as `<|image|>`, which would request a picture."""
        for token in self.base.tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text

    def _encode(self, inputs: list[dict[str, Any]]) -> Tensor:
        """Vectors of images or texts: float32 [N, D] of length 1."""
        vectors: Tensor = self.base.encode(
            inputs,
            show_progress_bar=False,
            convert_to_tensor=True,
            truncate_dim=self.embedding_dim,
        )
        return functional.normalize(vectors.float(), dim=-1)

    def train(self, mode: bool = True) -> SentenceEmbedder:
        """Stay in evaluation mode: nothing is trained."""
        return super().train(False)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return empty groups: nothing is trained."""
        return {"text": [], "video": [], "fusion": [], "rest": []}

    def enable_gradient_checkpointing(self) -> None:
        """Do nothing: no gradient passes through the frozen model."""

    def save_pretrained(
        self, folder: Path | str, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Write config.json, which names the source, and an empty file of weights.

        Args:
            tokenizer: ignored, as the source has its own; part of the interface.
        """
        checkpoint.save(folder, self.config, {})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> SentenceEmbedder:
        """Load the source that a folder's config.json names, on the CPU.

        Raises:
            ValueError: config.json does not match this class, or the source has changed.
            OSError: the hub or the folder does not have the source.
        """
        try:
            config = SentenceEmbedderConfig(**model_folder.load_config(folder))
        except TypeError as error:
            raise ValueError(
                f"{Path(folder) / model_folder.CONFIG_FILE} is not the config of an off-the-shelf "
                f"embedder: {error}"
            ) from error
        identity = model_folder.model_identity(config.source)
        if config.identity not in ("", identity):
            raise ValueError(
                f"the weights of {config.source} have changed: {identity}; {folder} was made with "
                f"{config.identity}. Delete the folder and run `ampere embed` again"
            )
        return load_sentence_embedder(config)


def load_sentence_embedder(config: SentenceEmbedderConfig) -> SentenceEmbedder:
    """Load an embedder with published weights in their own dtype, on the CPU, in evaluation mode.

    Raises:
        ValueError: see `SentenceEmbedder`.
        OSError: the hub or the folder does not have such a model.
        ImportError: its processor requires a package, which the message names.
    """
    from sentence_transformers import SentenceTransformer  # seconds

    with picture_processors():
        base = SentenceTransformer(config.source, device="cpu")
    transformer: Any = base[0]
    if transformer.config.model_type in PADDED_TEXT:
        text = transformer.processing_kwargs.get("text", {})
        length = transformer.config.text_config.max_position_embeddings
        transformer.processing_kwargs["text"] = {
            "padding": "max_length", "max_length": length, **text,
        }  # fmt: skip
    return SentenceEmbedder(base, config)
