"""Judging a model during training: mR1 over the validation products."""

from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from ampere.losses.gather import rank_and_world_size
from ampere.media.images import model_input
from ampere.models.embedder import embed_pixels
from ampere.records import Domain
from ampere.retrieval.evaluation import judge, mean_recall
from ampere.retrieval.metrics import Vectors
from ampere.training.data import FrameSource, TrainingSet

BATCH_SIZE = 32


def validation_score(
    model: Any, tokenizer: PreTrainedTokenizerBase | None, training_set: TrainingSet, frames: FrameSource
) -> float:
    """mR1 in percent over all samples of the validation products, the same on every rank. A collective.

    Every rank embeds its part. The model is left in the mode that it was in.
    """
    rank, ranks = rank_and_world_size()
    rows = [
        (sample_id, product, domain)
        for product, domains in sorted(training_set.validation.items())
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
        parts.append(embed_pixels(model, tokenizer, pixels, texts, domains))
    model.train(mode)
    gathered = [parts]
    if dist.is_initialized():
        gathered = [[] for _ in range(ranks)]
        dist.all_gather_object(gathered, parts)
    vectors = np.concatenate([part for parts in gathered for part in parts])
    order = [row for r in range(ranks) for row in rows[r::ranks]]
    return mean_recall(judge(by_domain(vectors, order)))


def by_domain(vectors: np.ndarray, rows: list[tuple[str, str, Domain]]) -> dict[Domain, Vectors]:
    """Embeddings float32 [N, D] of N (sample, product, domain), parted by domain."""
    domains = np.array([domain for *_, domain in rows])
    products = np.array([product for _, product, _ in rows])
    return {
        domain: Vectors(vectors=vectors[domains == domain], products=products[domains == domain]) for domain in Domain
    }
