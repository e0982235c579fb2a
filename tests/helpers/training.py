"""A tiny training task in memory: products that differ in color, and a small network."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.config.train import TrainSettings
from ampere.media.images import encode_jpeg
from ampere.models.tokenizer import build_tokenizer
from ampere.records import Domain
from ampere.training.data import Batch, ProductBatches, TrainingSet
from ampere.training.loop import TrainJob

SIZES = ModelSettings(
    image_size=32,
    patch_size=16,
    num_frames=2,
    vision_width=24,
    vision_layers=1,
    vision_heads=2,
    message_width=16,
    text_width=16,
    text_layers=1,
    text_heads=2,
    max_text_tokens=8,
    width=16,
    heads=2,
    mlp_width=32,
    temporal_layers=1,
    fusion_layers=1,
    embedding_dim=16,
)
FROZEN = ModelSettings(
    **vars(SIZES) | {"vision_weights": EFFICIENTNET, "freeze_vision": True, "temporal_layers": 0}
)
"""As SIZES, on a frozen tower whose features are stored."""


class MemoryFrames:
    """A FrameSource over a dictionary; records which samples were read."""

    def __init__(self, frames: dict[str, list[bytes]]) -> None:
        self.frames = frames
        self.taken: list[str] = []

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        self.taken += sample_ids
        return [self.frames[sample_id] for sample_id in sample_ids]


def solid_frames(product: int, count: int, size: tuple[int, int] = (48, 40)) -> list[bytes]:
    """`count` equal frames of one color, which depends on the product."""
    rng = random.Random(product)
    color = tuple(rng.randrange(256) for _ in range(3))
    image = Image.new("RGB", size, color)
    return [encode_jpeg(image, 90) for _ in range(count)]


def small_set(
    products: int, domains: dict[int, tuple[Domain, ...]] | None = None
) -> tuple[TrainingSet, MemoryFrames]:
    """Products p00, p01, ... with two samples in each of their domains; default: all domains."""
    ids: dict[str, dict[Domain, list[str]]] = {}
    frames: dict[str, list[bytes]] = {}
    texts: dict[str, str | None] = {}
    for product in range(products):
        for domain in (domains or {}).get(product, tuple(Domain)):
            for copy in range(2):
                sample_id = f"{domain}-{product:02}-{copy}"
                ids.setdefault(f"p{product:02}", {}).setdefault(domain, []).append(sample_id)
                frames[sample_id] = solid_frames(
                    product, 1 if domain is Domain.PAGE else SIZES.num_frames
                )
                texts[sample_id] = f"product {product}" if copy else None
    return TrainingSet(products=ids, texts=texts), MemoryFrames(frames)


def small_job(training_set: TrainingSet, **train: object) -> TrainJob:
    """A job with the network of SIZES; `train` overrides its settings."""
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "warmup_epochs": 0.0,
        "classifier_weight": 0.02,
        "loader_workers": 0,
    }
    settings |= {"log_every": 1, "text_dropout": 0.0}
    settings |= dict.fromkeys(("lr_text", "lr_video", "lr_fusion", "lr_rest"), 1e-3)
    return TrainJob(
        training_set=training_set,
        tokenizer=build_tokenizer(text for text in training_set.texts.values() if text),
        model=SIZES,
        train=TrainSettings(**settings | train),  # type: ignore[arg-type]
    )


def frozen_job(training_set: TrainingSet, **train: object) -> TrainJob:
    """As `small_job`, with the network of FROZEN."""
    return replace(small_job(training_set, **train), model=FROZEN)


MIXED = {
    1: (Domain.PAGE, Domain.SHORT),
    2: (Domain.SHORT, Domain.LIVE),
    4: (Domain.PAGE, Domain.LIVE),
}


class Sampler:
    """The batches of one rank, an epoch at a time."""

    def __init__(
        self,
        training_set: TrainingSet,
        batch_size: int = 4,
        rank: int = 0,
        ranks: int = 1,
        seed: int = 0,
        text_dropout: float = 0.0,
        frame_dropout: float = 0.0,
    ) -> None:
        self.set, self.rank, self.ranks = training_set, rank, ranks
        self.settings = TrainSettings(
            batch_size=max(2, batch_size),
            crop_scale=0.8,
            seed=seed,
            text_dropout=text_dropout,
            frame_dropout=frame_dropout,
            warmup_epochs=0.0,
        )

    def batches(self, frames: MemoryFrames) -> ProductBatches:
        """All batches, by step."""
        return ProductBatches(
            self.set,
            frames,
            self.settings,
            num_frames=SIZES.num_frames,
            image_size=SIZES.image_size,
            rank=self.rank,
            ranks=self.ranks,
        )

    def epoch(self, number: int, frames: MemoryFrames) -> Iterator[Batch]:
        """The batches of one epoch."""
        batches = self.batches(frames)
        steps = batches.steps_per_epoch
        return (batches[step] for step in range(number * steps, (number + 1) * steps))
