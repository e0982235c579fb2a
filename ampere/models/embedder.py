"""A saved model that turns stored frames and text into embeddings: the same for batch jobs and for serving."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ampere.config import TextSource
from ampere.media.images import model_input
from ampere.models.checkpoint import content_hash
from ampere.models.networks import load_network, text_inputs
from ampere.models.tokenizer import load_tokenizer
from ampere.records import Domain

DOMAINS = list(Domain)
SETTINGS_FILE = "settings.json"  # beside the weights: the settings that the model was trained with


class Embedder:
    """One model on one device.

    Attributes:
        model: a `Network`.
        bf16: whether products are of bfloat16; vectors are float32 in any case.
        name: the model's name and checksum, as the `embeddings` table names it.
        text_source: what the model reads as text: `summary`, `raw` or `none`.
    """

    def __init__(self, folder: Path, device: str = "cpu", *, bf16: bool = False) -> None:
        self.device, self.bf16 = device, bf16
        self.model: Any = load_network(folder).to(device)
        tokenized = self.model.reads_text and self.model.max_text_tokens > 0
        self.tokenizer = load_tokenizer(folder) if tokenized else None
        self.name = embedding_name(folder)
        self.text_source = text_source(folder)

    def embed(
        self, frames: Sequence[Sequence[bytes]], texts: Sequence[str | None], domains: Sequence[Domain]
    ) -> NDArray[np.float32]:
        """Embed samples given as stored JPEG frames, text and domain: float32 [N, D], of length 1.

        Samples of one frame go through the network's page way, which costs an eighth; the order is kept.

        Raises:
            ValueError: a sample has neither one frame nor as many as the model reads.
        """
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return embed_samples(self.model, self.tokenizer, frames, texts, domains)


@torch.inference_mode()
def embed_samples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    frames: Sequence[Sequence[bytes]],
    texts: Sequence[str | None],
    domains: Sequence[Domain],
) -> NDArray[np.float32]:
    """Embed stored samples with a `Network` in evaluation mode, wherever it lives; see `Embedder.embed`."""
    device = next(model.parameters()).device
    vectors = np.empty((len(frames), model.embedding_dim), dtype=np.float32)
    counts = [len(jpegs) for jpegs in frames]
    unknown = set(counts) - {1, model.num_frames}
    if unknown:
        raise ValueError(f"a sample has {min(unknown)} frames; this model reads 1 or {model.num_frames}")
    for count in set(counts):
        rows = [i for i, n in enumerate(counts) if n == count]
        pixels = torch.from_numpy(np.stack([model_input(frames[i], model.image_size) for i in rows]))
        read, mask = text_inputs(model, tokenizer, [texts[i] for i in rows], device)
        places = torch.tensor([DOMAINS.index(domains[i]) for i in rows], device=device)
        vectors[rows] = model(pixels.to(device), read, mask, places).float().cpu().numpy()
    return vectors


def embedding_name(folder: Path) -> str:
    """How the `embeddings` table names the model in a folder: its name and the checksum of its weights."""
    return f"{folder.name}@{content_hash(folder)}"


def text_source(folder: Path) -> TextSource:
    """What the model in a folder reads as text."""
    return json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["train"]["text"]
