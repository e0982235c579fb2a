"""The training loop in plain torch: one process, or one of several that torch.distributed has joined.

    training = Training(job, frames)
    training.load(folder)  # to go on from a checkpoint
    trained = training.run(on_metrics=print)

Knows nothing of Ray. With torch.distributed initialised, the model is wrapped in DDP and every rank does the same.
"""

import math
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.losses.gather import rank_and_world_size
from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer
from ampere.models.checkpoint import copy_fitting_weights, copy_tensors, load_weights
from ampere.models.networks import build_network
from ampere.training.data import FrameSource, ProductBatches, TrainingSet
from ampere.training.state import load_state, save_state, trainable
from ampere.training.step import ProductModel, Step
from ampere.training.validation import validation_score

Metrics = dict[str, float]
Checkpoint = Callable[[Callable[[Path], None]], None]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All that a rank needs besides the frames.

    Attributes:
        tokenizer: None for a network that reads no tokens.
        start: a local model folder whose weights to start from, as far as they fit.
    """

    training_set: TrainingSet
    tokenizer: PreTrainedTokenizerBase | None
    model: ModelSettings
    train: TrainSettings
    start: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training gives.

    Attributes:
        model: the `Network`, with the weights that did best on the validation products, or the last where none judge.
        last: the last of the weights that are trained, if they are not the best.
        classifier: this rank's class centres.
        scores: `step` and, if it was validated, `validation_mR1` of the model.
    """

    model: Any
    last: Mapping[str, Tensor] | None
    classifier: PartialFC
    scores: Metrics


class Training:
    """One rank's training.

    Raises:
        ValueError: fewer than two training products a rank with two domains each, or a batch that ranks cannot share.
        OSError: a rank cannot have the weights to start from; all ranks raise it at once.
    """

    def __init__(self, job: TrainJob, frames: FrameSource) -> None:
        settings = job.train
        rank, ranks = rank_and_world_size()
        check_products(len(job.training_set.products), ranks)
        check_batch(settings.batch_size, ranks)
        self.job, self.settings, self.frames = job, settings, frames
        self.device = own_device(settings.gpus)
        torch.manual_seed(settings.seed)
        self.model: Any = build_on_all_ranks(job).to(self.device)
        if settings.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        if settings.compile:
            self.model.compile(
                dynamic=True
            )  # texts, and the rows of a domain, are of another number each step
        self.tokenizer = job.tokenizer if self.model.reads_text else None
        self.classifier = PartialFC(
            len(job.training_set.products), self.model.embedding_dim, scale=settings.scale, margin=settings.margin,
            sample_rate=settings.sample_rate, seed=settings.seed,
        ).to(self.device)  # fmt: skip
        self.optimizers = build_optimizers(self.model, self.classifier, settings)
        network: nn.Module = ProductModel(self.model)
        if ranks > 1 and trainable(self.model):  # DDP refuses a network that has nothing to train
            network = DistributedDataParallel(network, forward_sync_buffers=False)
        self.step = Step(network, self.classifier, self.tokenizer, settings, device=self.device)
        self.batches = ProductBatches(
            job.training_set, frames, settings, num_frames=self.model.num_frames, image_size=self.model.image_size,
            rank=rank, ranks=ranks,
        )  # fmt: skip
        self.steps = settings.epochs * self.batches.steps_per_epoch
        self.done = 0
        self.best: Metrics = {"step": 0, "validation_mR1": -1.0}
        self.best_weights: dict[str, Tensor] | None = None  # None until the first validation
        self.history: list[Metrics] = []

    def run(
        self, on_metrics: Callable[[Metrics], None], checkpoint: Checkpoint | None = None
    ) -> Trained:
        """Train to the last step.

        Args:
            on_metrics: called on every rank with the mean losses of the last steps, the same on all; first with
                those that a checkpoint brought along.
            checkpoint: called on every rank each `checkpoint_every` steps with a function that writes this rank's part
                of a checkpoint to a folder. The parts of all ranks belong into one folder.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; all ranks raise it at once.
        """
        for metrics in self.history:
            on_metrics(metrics)
        settings, rank = self.settings, rank_and_world_size()[0]
        window = Window()
        loader = self.batches.loader(range(self.done, self.steps), settings.loader_workers)
        while self.done < self.steps:
            window.wait_for_batch()
            batch = next(loader)
            window.got_batch()
            set_learning_rates(self.optimizers, self.learning_rate(self.done))
            # Chance starts anew at each step, so that a checkpoint need not hold its state.
            seed = stream(settings.seed, self.done, rank)
            self.classifier.generator.manual_seed(seed)
            losses = self.step.backward(batch, seed)
            window.add(losses, self.update())
            self.done += 1
            last = self.done == self.steps
            judged = bool(self.job.training_set.validation) and (
                last or self.due(settings.validate_every)
            )
            saved = self.due(settings.checkpoint_every) and not last
            if last or judged or saved or self.due(settings.log_every):
                metrics = {
                    "step": self.done,
                    "epoch": self.done / self.batches.steps_per_epoch,
                } | window.close()
                check_finite(metrics)  # before these weights are judged or saved
                if judged:
                    metrics["validation_mR1"] = self.validate()
                self.history.append(metrics)
                on_metrics(metrics)
                if checkpoint is not None and saved:
                    checkpoint(self.save)
                window.open()
        return self.finish()

    def due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def learning_rate(self, step: int) -> float:
        return learning_rate(
            step, self.steps, self.settings.warmup_epochs * self.batches.steps_per_epoch
        )

    def update(self) -> Tensor:
        """One step of both optimizers on the gradients at hand; returns the norm of the network's, before clipping."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def validate(self) -> float:
        """The validation score of the present weights, which are kept if none were better."""
        score = validation_score(
            self.model, self.tokenizer, self.job.training_set, self.frames, self.settings.bf16
        )
        if score > self.best["validation_mR1"]:
            self.best = {"step": self.done, "validation_mR1": score}
            self.best_weights = self.weights()
        return score

    def weights(self) -> dict[str, Tensor]:
        return {
            name: weight.detach().cpu().clone() for name, weight in trainable(self.model).items()
        }

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint."""
        progress = {"done": self.done, "best": self.best, "history": self.history}
        save_state(
            folder, self.model, self.classifier, self.optimizers, progress, self.best_weights
        )

    def load(self, folder: Path) -> None:
        """Take up a checkpoint; see `ampere.training.state.load_state` for what it raises."""
        progress, self.best_weights = load_state(
            folder, self.model, self.classifier, self.optimizers
        )
        self.done, self.best, self.history = progress["done"], progress["best"], progress["history"]

    def finish(self) -> Trained:
        scores: Metrics = {"step": self.done} if self.best_weights is None else self.best
        last = None
        if self.best_weights is not None and self.best["step"] != self.done:
            last = self.weights()
            copy_tensors(trainable(self.model), self.best_weights, source="the best step")
        return Trained(
            model=self.model.cpu().eval(),
            last=last,
            classifier=self.classifier.cpu(),
            scores=scores,
        )


def stream(*numbers: int) -> int:
    """A seed for torch's generators (32 bits count) out of some numbers."""
    return zlib.crc32(repr(numbers).encode())


class Window:
    """Mean losses, gradient norm, time and waiting of the steps since it was opened."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.start = time.perf_counter()
        self.figures: list[Tensor] = []
        self.waited = 0.0

    def wait_for_batch(self) -> None:
        self.asked = time.perf_counter()

    def got_batch(self) -> None:
        self.waited += time.perf_counter() - self.asked

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """A step's losses, float32 [2], and gradient norm, float32 []; they stay on their device, unread."""
        self.figures.append(torch.cat([losses, norm[None]]))

    def close(self) -> Metrics:
        """The figures over all ranks: the mean of losses and norms, and the times of the slowest. A collective."""
        # The contrastive loss of the whole batch is the mean over the ranks' (ampere.losses.contrastive).
        figures = torch.stack(self.figures).mean(dim=0)
        if dist.is_initialized():
            dist.all_reduce(figures)
            figures /= dist.get_world_size()
        contrastive, classifier, norm = (
            figures.tolist()
        )  # waits for the device, so the time is that of finished steps
        seconds = time.perf_counter() - self.start
        times = figures.new_tensor([seconds / len(self.figures), self.waited / seconds])
        if dist.is_initialized():
            dist.all_reduce(times, dist.ReduceOp.MAX)
        seconds_per_step, waiting_share = times.tolist()
        return {
            "contrastive": contrastive, "classifier": classifier, "gradient_norm": norm,
            "seconds_per_step": seconds_per_step, "waiting_share": waiting_share,
        }  # fmt: skip


def own_device(gpus: float) -> torch.device:
    """This rank's device: the CPU, or the current GPU, which torchrun leaves to the process and Ray Train has set."""
    if gpus and dist.is_torchelastic_launched():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda" if gpus else "cpu")


def check_products(products: int, ranks: int) -> None:
    if products < 2 * ranks:
        raise ValueError(
            f"{products} training products have samples of two domains; at least {2 * ranks} are needed. Are products "
            "known (product_id) and frames decoded?"
        )


def check_batch(batch_size: int, ranks: int) -> None:
    if batch_size % ranks != 0:
        raise ValueError(
            f"train.batch_size is {batch_size} and there are {ranks} ranks; it must be a multiple of them, since each "
            "takes the same number of products"
        )


def check_finite(metrics: Metrics) -> None:
    if not all(math.isfinite(value) for value in metrics.values()):
        raise FloatingPointError(
            f"the loss became contrastive {metrics['contrastive']}, classifier {metrics['classifier']}, and its "
            f"gradient's norm {metrics['gradient_norm']}, by step {metrics['step']}; a smaller learning rate or more "
            "warm-up may help"
        )


def build_model(job: TrainJob) -> Any:
    """The `Network`, with the pretrained weights that the settings name.

    Raises:
        ValueError: it is to be trained and has nothing to train.
    """
    model = build_network(job.model, job.tokenizer, use_text=job.train.text != "none").train()
    if job.start is not None:
        copy_fitting_weights(model, load_weights(job.start), source=str(job.start))
    if job.train.epochs and not trainable(model):
        raise ValueError(
            f"model.network {job.model.network} has no weights to train with these settings; set --train.epochs 0, or "
            "--model.linear-layer true"
        )
    return model


def build_on_all_ranks(job: TrainJob) -> Any:
    """`build_model` on every rank. A collective.

    Raises:
        OSError: a rank cannot have the weights. Another machine may have them; but one rank that stopped alone would
            leave the others waiting for it.
        ValueError: as `build_model`, on all ranks alike.
    """
    model, failed = None, ""
    try:
        model = build_model(job)
    except OSError as error:
        failed = str(error) or type(error).__name__
    found = [failed]
    if dist.is_initialized():
        found = [""] * dist.get_world_size()
        dist.all_gather_object(found, failed)
    if any(found):
        rank = next(rank for rank, words in enumerate(found) if words)
        raise OSError(f"rank {rank} cannot have the weights to start from: {found[rank]}")
    return model


def build_optimizers(
    model: Any, classifier: PartialFC, settings: TrainSettings
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """AdamW with the paper's learning rate per part, biases and norms not decayed; and that of the class centres."""
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
    filled = [group for group in groups if group["params"]]
    of_model = torch.optim.AdamW(
        filled or [{"params": []}]
    )  # a network without weights of its own is not trained
    of_classifier = build_classifier_optimizer(classifier, settings.lr_rest)
    for optimizer in (of_model, of_classifier):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return of_model, of_classifier


def set_learning_rates(optimizers: tuple[torch.optim.Optimizer, ...], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


def learning_rate(step: int, steps: int, warmup_steps: float) -> float:
    """Factor on the learning rates: linear warm-up, then half a cosine down to zero.

    >>> [round(learning_rate(s, 10, 2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1.0, steps - warmup_steps)))
