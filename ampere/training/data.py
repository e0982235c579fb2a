"""Training batches: a row is one product with one random sample of each domain that it has."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ampere.records import Domain
from ampere.training.augment import augmented_input

CLIP_DOMAINS = (Domain.SHORT, Domain.LIVE)


class FrameSource(Protocol):
    """Random reads of stored frames."""

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        """JPEG frames of some samples, in their order."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What training draws from.

    Attributes:
        products: product -> domain -> its sample ids; only products of two domains or more.
        texts: sample id -> the text that the model reads, None where it is missing.
    """

    products: Mapping[str, Mapping[Domain, Sequence[str]]]
    texts: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a step: B products.

    Attributes:
        frames: domain -> uint8 [n, F, 3, H, W], one entry per product that has the domain; F is 1 for pages.
        texts: domain -> n texts.
        present: domain -> bool [B], which products have it.
        labels: int64 [B], class of each product.
    """

    frames: dict[Domain, Tensor]
    texts: dict[Domain, list[str | None]]
    present: dict[Domain, Tensor]
    labels: Tensor


class ProductSampler:
    """The batches of one rank, epoch by epoch.

    Every epoch visits each product once, in an order that all ranks share; rank r of R takes every R-th batch row.
    The last incomplete batch of an epoch is left out, as it would have fewer negatives.
    """

    def __init__(
        self, training_set: TrainingSet, *, batch_size: int, rank: int, ranks: int, num_frames: int, image_size: int,
        crop_scale: float, seed: int,
    ) -> None:  # fmt: skip
        """`batch_size` is the number of products over all ranks."""
        self.set = training_set
        self.names = sorted(training_set.products)
        self.batch_size = min(batch_size, len(self.names) - len(self.names) % ranks)
        self.rank, self.ranks = rank, ranks
        self.num_frames, self.image_size, self.crop_scale, self.seed = num_frames, image_size, crop_scale, seed

    @property
    def steps_per_epoch(self) -> int:
        return len(self.names) // self.batch_size

    def epoch(self, number: int, frames: FrameSource) -> Iterator[Batch]:
        """The batches of one epoch; the same for the same seed and number."""
        order = list(range(len(self.names)))
        random.Random(f"{self.seed}-{number}").shuffle(order)
        rng = random.Random(f"{self.seed}-{number}-{self.rank}")
        for step in range(self.steps_per_epoch):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(rows[self.rank :: self.ranks], rng, frames)

    def _batch(self, rows: list[int], rng: random.Random, frames: FrameSource) -> Batch:
        chosen: dict[Domain, list[str]] = {domain: [] for domain in Domain}
        present = {domain: torch.zeros(len(rows), dtype=torch.bool) for domain in Domain}
        for at, row in enumerate(rows):
            for domain, ids in self.set.products[self.names[row]].items():
                chosen[domain].append(rng.choice(list(ids)))
                present[domain][at] = True
        ids = [sample_id for domain in Domain for sample_id in chosen[domain]]
        jpegs = dict(zip(ids, frames.take(ids), strict=True))
        return Batch(
            frames={
                domain: self._pixels([jpegs[sample_id] for sample_id in chosen[domain]], domain, rng)
                for domain in Domain
            },
            texts={domain: [self.set.texts.get(sample_id) for sample_id in chosen[domain]] for domain in Domain},
            present=present,
            labels=torch.tensor(rows),
        )

    def _pixels(self, samples: list[list[bytes]], domain: Domain, rng: random.Random) -> Tensor:
        count = self.num_frames if domain in CLIP_DOMAINS else 1
        shape = (len(samples), count, 3, self.image_size, self.image_size)
        pixels = np.empty(shape, dtype=np.uint8)
        for at, jpegs in enumerate(samples):
            pixels[at] = augmented_input(jpegs, self.image_size, rng, self.crop_scale)
        return torch.from_numpy(pixels)
