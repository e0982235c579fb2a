"""Training batches: a row is one product, with one random sample of each domain it has."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ampere.config.model import View
from ampere.config.train import TrainSettings
from ampere.media.images import model_input
from ampere.records import CLIP_DOMAINS, Domain
from ampere.training.augment import augmented_input

Products = Mapping[str, Mapping[Domain, Sequence[str]]]  # product -> domain -> sample ids


class FrameSource(Protocol):
    """Random access to stored frames."""

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        """Read the JPEG frames of samples, in the order of `sample_ids`."""
        ...


@runtime_checkable
class FeatureSource(Protocol):
    """Random access to the stored features of a frozen tower, which take the place of frames."""

    def take_features(self, sample_ids: Sequence[str]) -> list[NDArray[np.float16]]:
        """Read features of samples, in the order of `sample_ids`: float16 [F, V] each."""
        ...


def take_stored(
    source: FrameSource | FeatureSource, sample_ids: Sequence[str]
) -> Sequence[list[bytes] | NDArray[np.float16]]:
    """Read what a source stores of samples: JPEG frames, or features [F, V]."""
    if isinstance(source, FeatureSource):
        return source.take_features(sample_ids)
    return source.take(sample_ids)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The products to train on, their texts, and the products to validate on.

    Attributes:
        products: product -> domain -> its sample ids; only products with two domains or more.
        texts: sample id -> the text that the model reads, None where it is missing.
        validation: products held out to evaluate the model during training; disjoint from
            `products`.
    """

    products: Products
    texts: Mapping[str, str | None]
    validation: Products = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's rows of a step: B products.

    Attributes:
        frames: domain -> uint8 [n, F, 3, H, W] for the n products that have the domain; F is 1
            for pages. With a frozen tower its features, float16 [n, F, V].
        texts: domain -> n texts.
        has_frames: domain -> bool [n], False where the frames were dropped and are black, or their
            features zero, which the network replaces.
        present: domain -> bool [B], which products have the domain.
        labels: int64 [B], class of each product.
    """

    frames: dict[Domain, Tensor]
    texts: dict[Domain, list[str | None]]
    has_frames: dict[Domain, Tensor]
    present: dict[Domain, Tensor]
    labels: Tensor

    def split(self, size: int) -> list["Batch"]:
        """Split the rows into batches of at most `size`."""
        return [self._rows(start, start + size) for start in range(0, len(self.labels), size)]

    def _rows(self, start: int, stop: int) -> "Batch":
        entries = {
            domain: slice(int(present[:start].sum()), int(present[:stop].sum()))
            for domain, present in self.present.items()
        }
        return Batch(
            frames={domain: frames[entries[domain]] for domain, frames in self.frames.items()},
            texts={domain: texts[entries[domain]] for domain, texts in self.texts.items()},
            has_frames={d: has_frames[entries[d]] for d, has_frames in self.has_frames.items()},
            present={domain: present[start:stop] for domain, present in self.present.items()},
            labels=self.labels[start:stop],
        )


class Pick(NamedTuple):
    """A sample drawn for a row, and the row's random generator."""

    sample_id: str
    rng: random.Random


class ProductBatches(Dataset[Batch]):
    """The batches of one rank by step number, from 0.

    Every epoch visits each product once, in an order that all ranks share; rank r of R takes every
    R-th row of a step's batch. The last incomplete batch of an epoch is dropped, because it would
    have fewer negatives. A row's samples, crops and missing texts are drawn from the seed, the
    epoch and the product alone. So the batch of a step does not depend on earlier steps, and its
    rows are the same for any number of ranks.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        frames: FrameSource | FeatureSource,
        train: TrainSettings,
        *,
        num_frames: int,
        image_size: int,
        view: View = "center",
        augment: bool = True,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.set, self.frames = training_set, frames
        self.names = sorted(training_set.products)
        self.batch_size = whole_batch(train, len(self.names), ranks)
        self.rank, self.ranks = rank, ranks
        self.num_frames, self.image_size, self.view = num_frames, image_size, view
        self.augment = augment
        self.crop_scale, self.color_jitter = train.crop_scale, train.colour_jitter
        self.text_dropout, self.frame_dropout = train.text_dropout, train.frame_dropout
        self.seed = train.seed

    @property
    def steps_per_epoch(self) -> int:
        """Number of complete batches in an epoch."""
        return len(self.names) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        epoch, number = divmod(step, self.steps_per_epoch)
        order = shuffled(len(self.names), f"{self.seed}-{epoch}")
        rows = order[number * self.batch_size : (number + 1) * self.batch_size]
        return self._batch(rows[self.rank :: self.ranks], epoch)

    def loader(self, steps: range, workers: int) -> Iterator[Batch]:
        """Iterate over the batches of `steps` in order, prepared ahead of time.

        Args:
            steps: step numbers.
            workers: processes that prepare batches; 0: one thread.
        """
        if workers == 0:
            return prefetch(self[step] for step in steps)
        # Lance's threads do not survive a fork, so the processes are spawned.
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
        picks, present = self._draw(rows, epoch)
        sample_ids = [pick.sample_id for domain in Domain for pick in picks[domain]]
        stored = dict(zip(sample_ids, take_stored(self.frames, sample_ids), strict=True))
        # A row has one generator. It draws samples first, then crops, then missing texts, then
        # missing frames; another order would change every batch.
        pixels = {domain: self._inputs(picks[domain], stored, domain) for domain in Domain}
        texts = {domain: [self._text(pick) for pick in picks[domain]] for domain in Domain}
        has_frames = {
            domain: torch.tensor(
                [
                    self._has_frames(*pair)
                    for pair in zip(picks[domain], texts[domain], strict=True)
                ],
                dtype=torch.bool,
            )
            for domain in Domain
        }
        for domain in Domain:
            pixels[domain][~has_frames[domain]] = 0
        return Batch(
            frames=pixels,
            texts=texts,
            has_frames=has_frames,
            present=present,
            labels=torch.tensor(rows),
        )

    def _draw(
        self, rows: Sequence[int], epoch: int
    ) -> tuple[dict[Domain, list[Pick]], dict[Domain, Tensor]]:
        """Draw a sample for each row and domain; also bool [B] by domain: which rows have one."""
        picks: dict[Domain, list[Pick]] = {domain: [] for domain in Domain}
        present = {domain: torch.zeros(len(rows), dtype=torch.bool) for domain in Domain}
        for number, row in enumerate(rows):
            product = self.names[row]
            rng = random.Random(f"{self.seed}-{epoch}-{product}")
            domains = self.set.products[product]
            for domain in Domain:
                if domain in domains:
                    picks[domain].append(Pick(rng.choice(domains[domain]), rng))
                    present[domain][number] = True
        return picks, present

    def _text(self, pick: Pick) -> str | None:
        return None if pick.rng.random() < self.text_dropout else self.set.texts.get(pick.sample_id)

    def _has_frames(self, pick: Pick, text: str | None) -> bool:
        """Whether a sample keeps its frames; one without text always does."""
        return pick.rng.random() >= self.frame_dropout or not text

    def _inputs(self, picks: Sequence[Pick], stored: Mapping[str, Any], domain: Domain) -> Tensor:
        """The network's visual input of n picks of one domain: pixels, or stored features."""
        if not isinstance(self.frames, FeatureSource):
            return self._pixels(picks, stored, domain)
        num_frames = self.num_frames if domain in CLIP_DOMAINS else 1
        width = next(iter(stored.values())).shape[1]
        features = np.empty((len(picks), num_frames, width), np.float16)
        for number, (sample_id, rng) in enumerate(picks):
            # In place of crops, a clip is a random choice of its frames, in order of time; an image
            # stored for a clip is repeated.
            frames = range(len(stored[sample_id]))
            features[number] = stored[sample_id][sorted(rng.choices(frames, k=num_frames))]
        return torch.from_numpy(features)

    def _pixels(
        self, picks: Sequence[Pick], jpegs: Mapping[str, Sequence[bytes]], domain: Domain
    ) -> Tensor:
        """Read and augment the frames of n picks of one domain: uint8 [n, F, 3, H, W].

        Without `augment` they are those of embedding. An image stored for a clip is repeated in all
        F frames.
        """
        num_frames = self.num_frames if domain in CLIP_DOMAINS else 1
        shape = (len(picks), num_frames, 3, self.image_size, self.image_size)
        pixels: NDArray[np.uint8] = np.empty(shape, np.uint8)
        for number, (sample_id, rng) in enumerate(picks):
            frames = jpegs[sample_id]
            if len(frames) not in (1, num_frames):
                raise ValueError(
                    f"wrong number of frames in {domain} {sample_id}: {len(frames)}; expected 1 or "
                    f"{num_frames}. Set --decode.num-frames to --model.num-frames, and run "
                    "`ampere decode` to the end."
                )
            if self.augment:
                pixels[number] = augmented_input(
                    frames, self.image_size, rng, self.crop_scale, self.color_jitter
                )
            else:
                pixels[number] = model_input(frames, self.image_size, self.view)
        return torch.from_numpy(pixels)


def whole_batch(train: TrainSettings, products: int, ranks: int = 1) -> int:
    """Number of products per step over all ranks.

    Fewer products than a batch are cut to a multiple of `train.workers`, whatever the number of
    ranks: a training that goes on with fewer ranks keeps its batches.

    >>> whole_batch(TrainSettings(batch_size=8, workers=2), products=7)
    6
    """
    multiple = math.lcm(train.workers, ranks)
    return min(train.batch_size, products - products % multiple)


@lru_cache(maxsize=2)
def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """Shuffle the numbers 0 to `count` - 1 by a seed."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return tuple(order)


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Prepare the next batch in a thread while the current one trains.

    A thread is enough, because decoding images releases the interpreter lock.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = pool.submit(next, batches, None)
            yield batch
