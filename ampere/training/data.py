"""Training batches: a row is one product with one random sample of each domain that it has."""

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ampere.config.train import TrainSettings
from ampere.records import CLIP_DOMAINS, Domain
from ampere.training.augment import augmented_input

Products = Mapping[str, Mapping[Domain, Sequence[str]]]


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
        validation: products like `products`, none of them among those, that judge the model during training.
    """

    products: Products
    texts: Mapping[str, str | None]
    validation: Products = field(default_factory=dict)


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

    def split(self, size: int) -> list["Batch"]:
        """The same rows in batches of at most `size`."""
        return [self._rows(start, start + size) for start in range(0, len(self.labels), size)]

    def _rows(self, start: int, stop: int) -> "Batch":
        at = {
            d: slice(int(here[:start].sum()), int(here[:stop].sum()))
            for d, here in self.present.items()
        }
        return Batch(
            frames={domain: frames[at[domain]] for domain, frames in self.frames.items()},
            texts={domain: texts[at[domain]] for domain, texts in self.texts.items()},
            present={domain: here[start:stop] for domain, here in self.present.items()},
            labels=self.labels[start:stop],
        )


class ProductBatches(Dataset[Batch]):
    """The batches of one rank by number of step, from 0.

    Every epoch visits each product once, in an order that all ranks share; rank r of R takes every R-th row of a step's
    batch. The last incomplete batch of an epoch is left out, as it would have fewer negatives. A row's samples, crops
    and missing texts are drawn from the seed, the epoch and the product alone: the batch of a step is the same whatever
    came before it, and its rows are the same on any number of ranks.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        frames: FrameSource,
        train: TrainSettings,
        *,
        num_frames: int,
        image_size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.set, self.frames = training_set, frames
        self.names = sorted(training_set.products)
        self.batch_size = min(train.batch_size, len(self.names) - len(self.names) % ranks)
        self.rank, self.ranks = rank, ranks
        self.num_frames, self.image_size = num_frames, image_size
        self.crop_scale, self.colour_jitter = train.crop_scale, train.colour_jitter
        self.text_dropout, self.seed = train.text_dropout, train.seed

    @property
    def steps_per_epoch(self) -> int:
        return len(self.names) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        epoch, at = divmod(step, self.steps_per_epoch)
        order = shuffled(len(self.names), f"{self.seed}-{epoch}")
        rows = order[at * self.batch_size : (at + 1) * self.batch_size]
        return self._batch(rows[self.rank :: self.ranks], epoch)

    def loader(self, steps: range, workers: int) -> Iterator[Batch]:
        """The batches of some steps in order, made ahead: by `workers` processes, or by a thread where that is 0."""
        if workers == 0:
            return prefetch(self[step] for step in steps)
        # Lance's threads do not survive a fork, so the processes start afresh.
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                multiprocessing_context="spawn",
            )
        )

    def _batch(self, rows: Sequence[int], epoch: int) -> Batch:
        rngs = [random.Random(f"{self.seed}-{epoch}-{self.names[row]}") for row in rows]
        chosen: dict[Domain, list[tuple[str, random.Random]]] = {domain: [] for domain in Domain}
        present = {domain: torch.zeros(len(rows), dtype=torch.bool) for domain in Domain}
        for at, (row, rng) in enumerate(zip(rows, rngs, strict=True)):
            domains = self.set.products[self.names[row]]
            for domain in Domain:
                if domain in domains:
                    chosen[domain].append((rng.choice(domains[domain]), rng))
                    present[domain][at] = True
        ids = [sample_id for picks in chosen.values() for sample_id, _ in picks]
        jpegs = dict(zip(ids, self.frames.take(ids), strict=True))
        return Batch(
            frames={
                domain: self._pixels([(jpegs[sample_id], rng) for sample_id, rng in picks], domain)
                for domain, picks in chosen.items()
            },
            texts={
                domain: [self._text(*pick) for pick in picks] for domain, picks in chosen.items()
            },
            present=present,
            labels=torch.tensor(rows),
        )

    def _text(self, sample_id: str, rng: random.Random) -> str | None:
        return None if rng.random() < self.text_dropout else self.set.texts.get(sample_id)

    def _pixels(
        self, samples: Sequence[tuple[Sequence[bytes], random.Random]], domain: Domain
    ) -> Tensor:
        count = self.num_frames if domain in CLIP_DOMAINS else 1
        pixels: NDArray[np.uint8] = np.empty(
            (len(samples), count, 3, self.image_size, self.image_size), np.uint8
        )
        for at, (jpegs, rng) in enumerate(samples):
            if len(jpegs) not in (1, count):
                raise ValueError(
                    f"a {domain} has {len(jpegs)} frames and the model reads {count}; run `ampere decode` to its end, "
                    "with --decode.num-frames as --model.num-frames"
                )
            pixels[at] = augmented_input(
                jpegs, self.image_size, rng, self.crop_scale, self.colour_jitter
            )
        return torch.from_numpy(pixels)


@lru_cache(maxsize=2)
def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """The numbers below `count` in an order drawn from the seed."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return tuple(order)


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make the next batch in a thread while the present one trains; decoding pictures leaves the interpreter free."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
