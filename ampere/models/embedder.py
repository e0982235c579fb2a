"""A saved model that embeds stored frames and text, used by batch jobs and by serving alike.

    embedder = Embedder(Path("models/ampere"))
    vectors = embedder.embed([[jpeg]], ["a text"], [Domain.PAGE])  # float32 [1, D]

Letters: N samples, F frames of a sample (1 or `num_frames`), D embedding dimension.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ampere.media.images import model_input
from ampere.models.base import Network
from ampere.models.model_folder import embedding_name, text_source
from ampere.models.networks import load_network, text_inputs
from ampere.models.tokenizer import load_tokenizer
from ampere.records import Domain

DOMAINS = list(Domain)


class Embedder:
    """One model on one device.

    Args:
        folder: local model folder.
        device: torch's name of the device.
        bf16: compute in bfloat16; vectors are float32 in any case.
        fixed_batch_size: rows of every batch that the network gets; smaller batches are padded.
            None: batches of any size.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: of the model; None if it takes no token ids.
        name: the model's name and checksum, as in the `embeddings` table.
        text_source: what the model reads as text, a `TextSource`.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        bf16: bool = False,
        fixed_batch_size: int | None = None,
    ) -> None:
        self.device, self.bf16, self.fixed_batch_size = device, bf16, fixed_batch_size
        self.model: Network = load_network(folder).to(device)
        takes_token_ids = self.model.reads_text and self.model.max_text_tokens > 0
        self.tokenizer = load_tokenizer(folder) if takes_token_ids else None
        self.name = embedding_name(folder)
        self.text_source = text_source(folder)

    def compile(self, backend: str = "inductor", *, alone: bool = False) -> None:
        """Compile the network for pages and clips, each as frames and as features, and warm it up.

        This takes minutes. Weights become constants of the compiled code, in its dtype and memory
        layout: later changes of the weights have no effect, and each shape holds its own copy.

        Args:
            backend: torch's name.
            alone: compile for calls of `embed_pixels` with `alone`.

        Raises:
            ValueError: `fixed_batch_size` is None.
        """
        from torch._inductor import config

        if self.fixed_batch_size is None:
            raise ValueError(
                "fixed_batch_size is None; pass a number, since a network is compiled for batches "
                "of one size"
            )
        self.warm_up()  # creates what the network caches on first use, which torch cannot trace
        self.model.compile(dynamic=False, backend=backend)
        with config.patch(freezing=True):
            self.warm_up(alone=alone)

    def warm_up(self, *, alone: bool = False) -> None:
        """Embed a black page and a black clip, so that no later batch pays for first use.

        A model that takes stored features embeds those, too.
        """
        side, width = self.model.image_size, self.model.feature_width
        for count, domain in ((1, Domain.PAGE), (self.model.num_frames, Domain.SHORT)):
            inputs = [np.zeros((count, 3, side, side), np.uint8)]
            inputs += [np.zeros((count, width), np.float16)] * bool(width)
            for frames in inputs:
                self.embed_pixels([frames], [""], [domain], alone=alone)

    def embed(
        self,
        frames: Sequence[Sequence[bytes] | None],
        texts: Sequence[str | None],
        domains: Sequence[Domain],
    ) -> NDArray[np.float32]:
        """Embed N samples given as JPEG frames, text and domain.

        Samples of one frame take the network's page path, at an eighth of a clip's cost.

        Args:
            frames: one frame or `num_frames` per sample; None: words alone.
            texts: one per sample; None: frames alone.
            domains: one per sample.

        Returns:
            float32 [N, D] of length 1, in the order of the samples.

        Raises:
            ValueError: a sample has neither one frame nor `num_frames`, or it has words alone and
                the model does not embed words.
        """
        check_frame_counts(
            [len(jpegs) for jpegs in frames if jpegs is not None], self.model.num_frames
        )
        side, view = self.model.image_size, self.model.view
        pixels = [None if jpegs is None else model_input(jpegs, side, view) for jpegs in frames]
        return self.embed_pixels(pixels, texts, domains)

    def embed_pixels(
        self,
        pixels: Sequence[NDArray[np.uint8] | None],
        texts: Sequence[str | None],
        domains: Sequence[Domain],
        *,
        alone: bool = False,
    ) -> NDArray[np.float32]:
        """As `embed`, for decoded frames: uint8 [F, 3, H, W] per sample.

        With `alone` float32 [3, N, D]: whole samples, their frames alone, their text alone.
        """
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return embed_pixels(
                self.model,
                self.tokenizer,
                pixels,
                texts,
                domains,
                self.fixed_batch_size,
                alone=alone,
            )


@torch.inference_mode()
def embed_pixels(
    model: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    pixels: Sequence[NDArray[np.uint8] | None],
    texts: Sequence[str | None],
    domains: Sequence[Domain],
    fixed_batch_size: int | None = None,
    *,
    alone: bool = False,
) -> NDArray[np.float32]:
    """Embed N samples with a network in evaluation mode, on the network's device.

    Args:
        tokenizer: of the network; None if it takes no token ids.
        pixels: uint8 [F, 3, H, W] per sample; None is a sample without frames.
        texts: one per sample; None is a missing text.
        domains: one per sample.
        fixed_batch_size: see `Embedder`.
        alone: also embed frames alone and text alone; requires `Network.embeds_alone`.

    Returns:
        float32 [N, D] of length 1. With `alone` [3, N, D]: whole samples, their frames alone, their
        text alone.

    Raises:
        ValueError: a sample has neither one frame nor `num_frames`, or it has words alone and the
            model does not embed words.
    """
    if not model.embeds_words and any(frames is None for frames in pixels):
        does = "embeds texts together with frames only" if model.reads_text else "reads no text"
        raise ValueError(f"this model {does}, so it cannot embed words alone; give a picture")
    device = next(model.parameters()).device
    views = 3 if alone else 1
    vectors = np.empty((views, len(pixels), model.embedding_dim), dtype=np.float32)
    black = np.zeros((1, 3, model.image_size, model.image_size), np.uint8)
    shown = [black if frames is None else frames for frames in pixels]
    counts = [len(frames) for frames in shown]
    check_frame_counts(counts, model.num_frames)
    for count in set(counts):
        rows = [row for row, frames in enumerate(counts) if frames == count]
        size = fixed_batch_size or len(rows)
        for batch in (rows[start : start + size] for start in range(0, len(rows), size)):
            padded = batch + batch[-1:] * (size - len(batch))  # repeats the last sample
            frames = torch.from_numpy(np.stack([shown[row] for row in padded])).contiguous()
            text, mask = text_inputs(
                model,
                tokenizer,
                [texts[row] for row in padded],
                device,
                pad_to_max=bool(fixed_batch_size),
            )
            places = torch.tensor([DOMAINS.index(domains[row]) for row in padded], device=device)
            options: dict[str, Any] = {}
            if model.embeds_alone:
                has_frames = [pixels[row] is not None for row in padded]
                mask_of_frames = (
                    None if all(has_frames) else torch.tensor(has_frames, device=device)
                )
                options = {"has_frames": mask_of_frames, "alone": alone}
            output = model(frames.to(device), text, mask, places, **options)
            embedded = output.float().cpu().numpy().reshape(views, size, -1)
            vectors[:, batch] = embedded[:, : len(batch)]
    return vectors if alone else vectors[0]


def check_frame_counts(counts: Sequence[int], num_frames: int) -> None:
    """Raise ValueError unless every sample has one frame or `num_frames`."""
    if invalid := set(counts) - {1, num_frames}:
        raise ValueError(
            f"a sample has {min(invalid)} frames; expected 1 (a page) or {num_frames} (a clip)"
        )
