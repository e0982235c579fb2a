"""A saved model that turns stored frames and text into embeddings: the same for batch jobs and for serving."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ampere.media.images import model_input
from ampere.models.model_folder import embedding_name, text_source
from ampere.models.networks import load_network, text_inputs
from ampere.models.tokenizer import load_tokenizer
from ampere.records import Domain

DOMAINS = list(Domain)


class Embedder:
    """One model on one device.

    Attributes:
        model: a `Network`.
        bf16: whether products are of bfloat16; vectors are float32 in any case.
        fixed: samples of every batch that the network sees, shorter ones filled up; None: as they come.
        name: the model's name and checksum, as the `embeddings` table names it.
        text_source: what the model reads as text, one of `TextSource`.
    """

    def __init__(
        self, folder: Path, device: str = "cpu", *, bf16: bool = False, fixed: int | None = None
    ) -> None:
        self.device, self.bf16, self.fixed = device, bf16, fixed
        self.model: Any = load_network(folder).to(device)
        tokenized = self.model.reads_text and self.model.max_text_tokens > 0
        self.tokenizer = load_tokenizer(folder) if tokenized else None
        self.name = embedding_name(folder)
        self.text_source = text_source(folder)

    def compile(self, backend: str = "inductor") -> None:
        """Compile the network for its two shapes, pages and clips, and warm it up; `fixed` must be set.

        It takes minutes. The weights are constants of what is compiled, in the type of its products and the order that
        these read fastest: a change of them is not seen, and each shape holds a copy.
        """
        from torch._inductor import config

        if self.fixed is None:
            raise ValueError("fixed is None; a network is compiled for batches of one size")
        self.warm_up()  # of what the network makes once and torch cannot trace
        self.model.compile(dynamic=False, backend=backend)
        with config.patch(freezing=True):
            self.warm_up()

    def warm_up(self) -> None:
        """Embed a black page and a black clip, so that no later batch waits for what happens once."""
        side = self.model.image_size
        for count, domain in ((1, Domain.PAGE), (self.model.num_frames, Domain.SHORT)):
            self.embed_pixels([np.zeros((count, 3, side, side), np.uint8)], [""], [domain])

    def embed(
        self,
        frames: Sequence[Sequence[bytes]],
        texts: Sequence[str | None],
        domains: Sequence[Domain],
    ) -> NDArray[np.float32]:
        """Embed samples given as stored JPEG frames, text and domain: float32 [N, D], of length 1.

        Samples of one frame go through the network's page way, which costs an eighth; the order is kept.

        Raises:
            ValueError: a sample has neither one frame nor as many as the model reads.
        """
        check_counts([len(jpegs) for jpegs in frames], self.model.num_frames)
        return self.embed_pixels(
            [model_input(jpegs, self.model.image_size) for jpegs in frames], texts, domains
        )

    def embed_pixels(
        self,
        pixels: Sequence[NDArray[np.uint8]],
        texts: Sequence[str | None],
        domains: Sequence[Domain],
    ) -> NDArray[np.float32]:
        """As `embed`, of frames that are decoded: uint8 [F, 3, H, W] each."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return embed_pixels(self.model, self.tokenizer, pixels, texts, domains, self.fixed)


@torch.inference_mode()
def embed_pixels(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    pixels: Sequence[NDArray[np.uint8]],
    texts: Sequence[str | None],
    domains: Sequence[Domain],
    fixed: int | None = None,
) -> NDArray[np.float32]:
    """Embed samples with a `Network` in evaluation mode, wherever it lives; see `Embedder`."""
    device = next(model.parameters()).device
    vectors = np.empty((len(pixels), model.embedding_dim), dtype=np.float32)
    counts = [len(frames) for frames in pixels]
    check_counts(counts, model.num_frames)
    for count in set(counts):
        found = [i for i, n in enumerate(counts) if n == count]
        size = fixed or len(found)
        for rows in (found[start : start + size] for start in range(0, len(found), size)):
            filled = rows + rows[-1:] * (
                size - len(rows)
            )  # with the last sample again, where they are too few
            frames = torch.from_numpy(np.stack([pixels[i] for i in filled])).contiguous()
            read, mask = text_inputs(
                model, tokenizer, [texts[i] for i in filled], device, fixed=bool(fixed)
            )
            places = torch.tensor([DOMAINS.index(domains[i]) for i in filled], device=device)
            embedded = model(frames.to(device), read, mask, places).float().cpu().numpy()
            vectors[rows] = embedded[: len(rows)]
    return vectors


def check_counts(counts: Sequence[int], num_frames: int) -> None:
    """Raise ValueError unless all samples have one frame or `num_frames`."""
    if unknown := set(counts) - {1, num_frames}:
        raise ValueError(f"a sample has {min(unknown)} frames; this model reads 1 or {num_frames}")
