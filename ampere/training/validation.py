"""Judging a model during training: mR1 over the validation products.

Of a large catalogue a part of them judges, always the same: at ROPE's size the samples of all would take longer to
embed and rank than the steps between two validations take to train.
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
from ampere.models.embedder import embed_pixels
from ampere.records import Domain
from ampere.retrieval.evaluation import judge, mean_recall
from ampere.retrieval.metrics import Vectors
from ampere.training.data import FrameSource, Products, TrainingSet

BATCH_SIZE = 32
MAX_PRODUCTS = 1000
MAX_SAMPLES = (
    len(Domain) * MAX_PRODUCTS
)  # that all may judge; of more, one for each domain of a product


def validation_score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    training_set: TrainingSet,
    frames: FrameSource,
    bf16: bool = False,
) -> float:
    """mR1 in percent over the samples that `judges` names, the same on every rank. A collective.

    Every rank embeds its part. The model is left in the mode that it was in.

    Args:
        bf16: products are of bfloat16, as in the training's steps.
    """
    rank, ranks = rank_and_world_size()
    rows = [
        (sample_id, product, domain)
        for product, domains in sorted(judges(training_set.validation).items())
        for domain, ids in domains.items()
        for sample_id in ids
    ]
    mode = model.training
    model.eval()
    mine = rows[rank::ranks]
    parts = []
    for start in range(0, len(mine), BATCH_SIZE):
        ids, _, domains = zip(*mine[start : start + BATCH_SIZE], strict=True)
        texts = [training_set.texts.get(sample_id) for sample_id in ids]
        pixels = [model_input(jpegs, model.image_size) for jpegs in frames.take(ids)]
        with torch.autocast(
            next(model.parameters()).device.type, dtype=torch.bfloat16, enabled=bf16
        ):
            parts.append(embed_pixels(model, tokenizer, pixels, texts, domains))
    model.train(mode)
    gathered = [parts]
    if dist.is_initialized():
        gathered = [[] for _ in range(ranks)]
        dist.all_gather_object(gathered, parts)
    vectors = np.concatenate([part for parts in gathered for part in parts])
    order = [row for r in range(ranks) for row in rows[r::ranks]]
    return mean_recall(judge(by_domain(vectors, order)))


def judges(validation: Products) -> Products:
    """The validation products and samples that judge: all, up to MAX_SAMPLES; of more, a fixed choice by checksum.

    Of at most MAX_PRODUCTS products, then, each has as many samples in each of its domains as there is room for.
    """
    if sum(len(ids) for domains in validation.values() for ids in domains.values()) <= MAX_SAMPLES:
        return validation
    chosen = in_fixed_order(validation)[:MAX_PRODUCTS]
    each = max(1, MAX_SAMPLES // sum(len(validation[product]) for product in chosen))
    return {
        product: {domain: in_fixed_order(ids)[:each] for domain, ids in validation[product].items()}
        for product in chosen
    }


def in_fixed_order(names: Iterable[str]) -> list[str]:
    """Names in an order that looks random, and that names which come or go leave as it is."""
    return sorted(names, key=lambda name: (zlib.crc32(f"judge {name}".encode()), name))


def by_domain(vectors: np.ndarray, rows: list[tuple[str, str, Domain]]) -> dict[Domain, Vectors]:
    """Embeddings float32 [N, D] of N (sample, product, domain), parted by domain."""
    domains = np.array([domain for *_, domain in rows])
    products = np.array([product for _, product, _ in rows])
    return {
        domain: Vectors(vectors=vectors[domains == domain], products=products[domains == domain])
        for domain in Domain
    }
