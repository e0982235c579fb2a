"""The training loop in plain torch: one process, or one of several that torch.distributed has joined.

    train(job, frames, on_epoch=print)

Knows nothing of Ray. With torch.distributed initialised, the model is wrapped in DDP and every rank calls `train`.
"""

import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from ampere.config import ModelSettings, TrainSettings
from ampere.losses.contrastive import contrastive_loss
from ampere.losses.gather import all_gather, rank_and_world_size
from ampere.losses.partial_fc import PartialFC
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.pretrained import load_pretrained_towers
from ampere.models.tokenizer import encode
from ampere.records import Domain
from ampere.training.data import CLIP_DOMAINS, Batch, FrameSource, ProductSampler, TrainingSet

Inputs = tuple[Tensor, Tensor | None, Tensor | None]  # frames, token ids, token mask


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All that a rank needs besides the frames."""

    training_set: TrainingSet
    tokenizer: PreTrainedTokenizerBase
    model: ModelSettings
    train: TrainSettings


@dataclass(frozen=True)
class Trained:
    """What training gives: the network, and the class centres of all products, float32 [C, D] in name order."""

    model: AMPere
    centers: Tensor


class ProductModel(nn.Module):
    """The network over a batch of products: all embeddings in one forward, as DDP wants it."""

    def __init__(self, model: AMPere) -> None:
        super().__init__()
        self.model = model

    def forward(self, pages: Inputs, clips: Inputs, present: Tensor) -> Tensor:
        """Embed pages with one frame each and clips with all theirs.

        Args:
            pages, clips: inputs of the n pages, and of the shorts and then the lives; either may be of no rows.
            present: bool [B, 3], which products have a page, a short, a live.

        Returns:
            float32 [B, 3, D]; zero where a product lacks the domain.
        """
        parts = [self.model(*inputs) for inputs in (pages, clips) if len(inputs[0])]
        vectors = torch.cat(parts)
        out = vectors.new_zeros(*present.shape, vectors.shape[-1])
        # Rows lie domain by domain in `vectors`; the mask of the transpose walks the products in the same order.
        return out.transpose(0, 1).masked_scatter(present.T.unsqueeze(-1), vectors).transpose(0, 1)


def train(job: TrainJob, frames: FrameSource, on_epoch: Callable[[dict[str, float]], None]) -> Trained:
    """Train from the start to the last epoch.

    Args:
        job: what to train, on what.
        frames: random reads of stored frames.
        on_epoch: called on every rank after each epoch with its number and mean losses.

    Raises:
        ValueError: fewer than two training products with two domains each.
        FloatingPointError: the loss is not finite.
    """
    settings, sizes = job.train, job.model
    rank, ranks = rank_and_world_size()
    products = len(job.training_set.products)
    if products < 2 * ranks:
        raise ValueError(
            f"{products} training products have samples of two domains; at least {2 * ranks} are needed. Are products "
            "known (product_id) and frames decoded?"
        )
    torch.manual_seed(settings.seed)
    random.seed(settings.seed)
    device = torch.device("cuda" if settings.gpus else "cpu")
    model = build_model(job).to(device)
    network: nn.Module = ProductModel(model)
    if ranks > 1:
        network = DistributedDataParallel(network, broadcast_buffers=False)
    classifier = PartialFC(
        products, sizes.embedding_dim, scale=settings.scale, margin=settings.margin, seed=settings.seed
    ).to(device)
    sampler = ProductSampler(
        job.training_set, batch_size=settings.batch_size, rank=rank, ranks=ranks, num_frames=sizes.num_frames,
        image_size=sizes.image_size, crop_scale=settings.crop_scale, seed=settings.seed,
    )  # fmt: skip
    optimizer = build_optimizer(model, classifier, settings)
    steps = settings.epochs * sampler.steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, steps, settings.warmup_epochs * sampler.steps_per_epoch)
    )
    for epoch in range(1, settings.epochs + 1):
        totals = torch.zeros(2)
        for batch in prefetch(sampler.epoch(epoch, frames)):
            totals += training_step(network, classifier, optimizer, batch, job, device)
            schedule.step()
        losses = totals / sampler.steps_per_epoch
        if not torch.isfinite(losses).all():
            raise FloatingPointError(
                f"the loss became {losses.tolist()} in epoch {epoch}; a smaller learning rate or more warm-up may help"
            )
        on_epoch({"epoch": epoch, "contrastive": losses[0].item(), "classifier": losses[1].item()})
    return Trained(model.cpu(), classifier.full_centers().cpu())


def build_model(job: TrainJob) -> AMPere:
    """The network, with the pretrained towers that the settings name."""
    config = AMPereConfig(
        sizes=job.model,
        vocab_size=len(job.tokenizer),
        pad_token_id=int(job.tokenizer.pad_token_id or 0),
        use_text=job.train.text != "none",
    )
    model = AMPere(config)
    load_pretrained_towers(model, job.model.vision_weights, job.model.text_weights)
    return model


def build_optimizer(model: AMPere, classifier: PartialFC, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW with the paper's learning rate per part; biases and norms are not decayed."""
    rates = {
        "text": settings.lr_text,
        "video": settings.lr_video,
        "fusion": settings.lr_fusion,
        "rest": settings.lr_rest,
    }
    groups = []
    for name, parameters in model.parameter_groups().items():
        for decay, chosen in (
            (settings.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "lr": rates[name], "weight_decay": decay})
    groups.append({"params": [classifier.centers], "lr": settings.lr_rest, "weight_decay": 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]])


def learning_rate(step: int, steps: int, warmup_steps: float) -> float:
    """Factor on the learning rates: linear warm-up, then half a cosine down to zero.

    >>> [round(learning_rate(s, 10, 2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1.0, steps - warmup_steps)))


def training_step(
    network: nn.Module,
    classifier: PartialFC,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    job: TrainJob,
    device: torch.device,
) -> Tensor:
    """One step on one batch; returns the two losses, float32 [2]: contrastive, classifier."""
    settings = job.train
    rank, _ = rank_and_world_size()
    present = torch.stack([batch.present[domain] for domain in Domain], dim=1).to(device)
    pages, clips = model_inputs(batch, job, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        vectors = network(pages, clips, present)
    keys, all_present = all_gather(vectors), all_gather(present)
    contrastive = contrastive_loss(
        vectors, keys, all_present, offset=rank * len(vectors),
        temperature=settings.temperature, label_smoothing=settings.label_smoothing,
    )  # fmt: skip
    labels = all_gather(batch.labels.to(device))[:, None].where(all_present, -1)
    classification = classifier(keys.flatten(0, 1), labels.flatten())
    optimizer.zero_grad(set_to_none=True)
    (contrastive + settings.classifier_weight * classification).backward()
    nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
    optimizer.step()
    return torch.stack([contrastive.detach(), classification.detach()]).cpu()


def model_inputs(batch: Batch, job: TrainJob, device: torch.device) -> tuple[Inputs, Inputs]:
    """The inputs of the pages and of the clips of a batch."""

    def inputs(domains: tuple[Domain, ...]) -> Inputs:
        frames = torch.cat([batch.frames[domain] for domain in domains]).to(device)
        texts = [text for domain in domains for text in batch.texts[domain]]
        if not texts or job.train.text == "none":
            return frames, None, None
        ids, mask = encode(job.tokenizer, texts, job.model.max_text_tokens)
        return frames, ids.to(device), mask.to(device)

    return inputs((Domain.PAGE,)), inputs(CLIP_DOMAINS)


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make the next batch in a thread while the present one trains; decoding pictures leaves the interpreter free."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
