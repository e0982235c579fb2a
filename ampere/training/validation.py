"""Validation during training: mR1 over held-out products.

A large catalog is validated on a fixed subset: at ROPE's size, embedding and ranking all held-out
samples would take longer than the training steps between two validations.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from ampere.losses.gather import rank_and_world_size
from ampere.media.images import model_input
from ampere.models.base import Network
from ampere.models.embedder import embed_pixels
from ampere.records import Domain
from ampere.retrieval.evaluation import evaluate_tasks, mean_recall
from ampere.retrieval.metrics import Vectors
from ampere.training.data import (
    FeatureSource,
    FrameSource,
    Products,
    TrainingSet,
    take_stored,
)

BATCH_SIZE = 32
MAX_PRODUCTS = 1000
# Up to this many samples, all are used; above, the subset has one sample per domain and product.
MAX_SAMPLES = len(Domain) * MAX_PRODUCTS


def validation_score(
    model: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    training_set: TrainingSet,
    frames: FrameSource | FeatureSource,
    bf16: bool = False,
) -> float:
    """Compute mR1 in percent over the `validation_subset`, equal on every rank. A collective.

    Each rank embeds its share of the samples. The model stays in its mode (training or evaluation).

    Args:
        model: the network.
        tokenizer: of the network; None where it reads no tokens.
        training_set: has the validation products and their texts.
        frames: has their frames, or a frozen tower's features of them.
        bf16: whether matrix products run in bfloat16, as in the training steps.
    """
    rank, ranks = rank_and_world_size()
    rows = [
        (sample_id, product, domain)
        for product, domains in sorted(validation_subset(training_set.validation).items())
        for domain, ids in domains.items()
        for sample_id in ids
    ]
    mode = model.training
    model.eval()
    own_rows = rows[rank::ranks]
    own_vectors = []
    for start in range(0, len(own_rows), BATCH_SIZE):
        ids, _, domains = zip(*own_rows[start : start + BATCH_SIZE], strict=True)
        texts = [training_set.texts.get(sample_id) for sample_id in ids]
        inputs: list[Any] = [
            stored
            if isinstance(stored, np.ndarray)
            else model_input(stored, model.image_size, model.view)
            for stored in take_stored(frames, ids)
        ]
        with torch.autocast(
            next(model.parameters()).device.type, dtype=torch.bfloat16, enabled=bf16
        ):
            own_vectors.append(embed_pixels(model, tokenizer, inputs, texts, domains))
    model.train(mode)
    gathered = [own_vectors]
    if dist.is_initialized():
        gathered = [[] for _ in range(ranks)]
        dist.all_gather_object(gathered, own_vectors)
    vectors = np.concatenate([batch for batches in gathered for batch in batches])
    rows_by_rank = [row for r in range(ranks) for row in rows[r::ranks]]
    return mean_recall(evaluate_tasks(vectors_by_domain(vectors, rows_by_rank)))


def validation_subset(validation: Products) -> Products:
    """Choose the products and samples to validate on: all, or a fixed subset of a large catalog.

    All are used up to MAX_SAMPLES samples. Of more, MAX_PRODUCTS products at most are chosen by
    checksum, each with as many samples per domain as MAX_SAMPLES allows, at least one.
    """
    if sum(len(ids) for domains in validation.values() for ids in domains.values()) <= MAX_SAMPLES:
        return validation
    chosen = checksum_order(validation)[:MAX_PRODUCTS]
    per_domain = max(1, MAX_SAMPLES // sum(len(validation[product]) for product in chosen))
    return {
        product: {
            domain: checksum_order(ids)[:per_domain] for domain, ids in validation[product].items()
        }
        for product in chosen
    }


def checksum_order(names: Iterable[str]) -> list[str]:
    """Sort names by checksum: a random-looking order that added or deleted names do not change."""
    # The prefix decides which products validate: another word would choose others.
    return sorted(names, key=lambda name: (zlib.crc32(f"judge {name}".encode()), name))


def vectors_by_domain(
    vectors: np.ndarray, rows: list[tuple[str, str, Domain]]
) -> dict[Domain, Vectors]:
    """Group the embeddings float32 [N, D] of N (sample, product, domain) rows by domain."""
    domains = np.array([domain for *_, domain in rows])
    products = np.array([product for _, product, _ in rows])
    return {
        domain: Vectors(vectors=vectors[domains == domain], products=products[domains == domain])
        for domain in Domain
    }
