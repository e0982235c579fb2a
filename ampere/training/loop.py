"""The training loop in plain torch: one process, or one of several joined by torch.distributed.

    training = Training(job, frames)
    training.load(folder)  # to resume from a checkpoint
    trained = training.run(on_metrics=print)

It does not use Ray. With torch.distributed initialized, the model is wrapped in DDP, and every rank
makes the same calls.
"""

import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.losses.gather import rank_and_world_size
from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer
from ampere.models.base import Network
from ampere.models.checkpoint import copy_fitting_weights, copy_tensors, load_weights
from ampere.models.lora import add_lora, merge_lora, without_adapters
from ampere.models.networks import build_network
from ampere.training.data import (
    Batch,
    FeatureSource,
    FrameSource,
    ProductBatches,
    TrainingSet,
    whole_batch,
)
from ampere.training.state import load_state, save_state, trainable
from ampere.training.step import ProductModel, Step
from ampere.training.validation import validation_score

Metrics = dict[str, float]
Checkpoint = Callable[[Callable[[Path], None]], None]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All that a rank needs besides the frames.

    Attributes:
        training_set: products, texts and validation products.
        tokenizer: None for a network that reads no tokens.
        model: sizes of the network, and its pretrained weights.
        train: settings of the training.
        start: a local model folder; its weights are copied where name and shape match.
    """

    training_set: TrainingSet
    tokenizer: PreTrainedTokenizerBase | None
    model: ModelSettings
    train: TrainSettings
    start: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a training.

    Attributes:
        model: the `Network`, with the weights of the best validation score; the last weights where
            there is no validation.
        last: the last trained weights, if they differ from the best; otherwise None.
        classifier: this rank's class centers; None if there was no training.
        scores: `step` and, if it was validated, `validation_mR1` of the model.
    """

    model: Network
    last: Mapping[str, Tensor] | None
    classifier: PartialFC | None
    scores: Metrics


def untrained(job: TrainJob) -> Trained:
    """The result of 0 epochs: the initial weights. It requires no products, frames or other ranks.

    Raises:
        OSError: the initial weights cannot be loaded.
    """
    torch.manual_seed(job.train.seed)
    return Trained(model=build_model(job).eval(), last=None, classifier=None, scores={"step": 0})


class Training:
    """One rank's training.

    Args:
        job: the same on every rank.
        frames: random access to the stored frames, or to a frozen tower's features of them.

    Raises:
        ValueError: fewer than two training products per rank, or a batch size that is not a
            multiple of the number of ranks.
        OSError: a rank cannot load the initial weights; all ranks raise it together.
    """

    def __init__(self, job: TrainJob, frames: FrameSource | FeatureSource) -> None:
        settings = job.train
        rank, ranks = rank_and_world_size()
        check_products(len(job.training_set.products), ranks)
        check_batch(settings, len(job.training_set.products), ranks)
        self.job, self.settings, self.frames = job, settings, frames
        self.device = rank_device(settings.gpus)
        torch.manual_seed(settings.seed)
        self.model: Network = build_on_all_ranks(job).to(self.device)
        if settings.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        if settings.compile:
            # Texts, and the number of samples of a domain, change their size at each step.
            self.model.compile(dynamic=True)
        self.tokenizer = job.tokenizer if self.model.reads_text else None
        self.classifier = PartialFC(
            len(job.training_set.products),
            self.model.embedding_dim,
            scale=settings.scale,
            margin=settings.margin,
            sample_rate=settings.sample_rate,
            seed=settings.seed,
        ).to(self.device)
        self.optimizers = build_optimizers(self.model, self.classifier, settings)
        network: nn.Module = ProductModel(self.model)
        if ranks > 1 and trainable(
            self.model
        ):  # DDP raises for a network without trainable weights
            network = DistributedDataParallel(network, forward_sync_buffers=False)
        self.step = Step(network, self.classifier, self.tokenizer, settings, device=self.device)
        self.batches = ProductBatches(
            job.training_set,
            frames,
            settings,
            num_frames=self.model.num_frames,
            image_size=self.model.image_size,
            view=self.model.view,
            augment=not self.model.is_frozen_encoder,
            rank=rank,
            ranks=ranks,
        )
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
            on_metrics: called on every rank with the mean losses since its last call, equal on all
                ranks. After `load` it is first called with the metrics of the checkpoint.
            checkpoint: called on every rank each `checkpoint_every` steps, with a function that
                writes this rank's part of a checkpoint to a folder. The parts of all ranks belong
                in one folder.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; all ranks raise it together.
        """
        settings = self.settings
        for metrics in self.history:
            on_metrics(metrics)
        window = MetricsWindow()
        loader = self.batches.loader(range(self.done, self.steps), settings.loader_workers)
        while self.done < self.steps:
            self._train_step(loader, window)
            last = self.done == self.steps
            validate = bool(self.job.training_set.validation) and (
                last or self.due(settings.validate_every)
            )
            save = self.due(settings.checkpoint_every) and not last
            if last or validate or save or self.due(settings.log_every):
                epoch = self.done / self.batches.steps_per_epoch
                metrics = {"step": self.done, "epoch": epoch} | window.close()
                check_finite(metrics)  # before these weights are validated or saved
                if validate:
                    metrics["validation_mR1"] = self.validate()
                self.history.append(metrics)
                on_metrics(metrics)
                if checkpoint is not None and save:
                    checkpoint(self.save)
                window.open()
        return self.finish()

    def _train_step(self, loader: Iterator[Batch], window: "MetricsWindow") -> None:
        window.start_waiting()
        batch = next(loader)
        window.stop_waiting()
        set_learning_rates(self.optimizers, self.learning_rate_factor(self.done))
        # Every step has its own seed, so that a checkpoint needs no state of random generators.
        seed = combined_seed(self.settings.seed, self.done, rank_and_world_size()[0])
        self.classifier.generator.manual_seed(seed)
        losses = self.step.backward(batch, seed)
        window.add(losses, self.update())
        self.done += 1

    def due(self, every: int) -> bool:
        """Whether something that happens each `every` steps happens now; 0: never."""
        return every > 0 and self.done % every == 0

    def learning_rate_factor(self, step: int) -> float:
        """The `learning_rate_factor` of a step of this training."""
        warmup_steps = self.settings.warmup_epochs * self.batches.steps_per_epoch
        return learning_rate_factor(step, self.steps, warmup_steps)

    def update(self) -> Tensor:
        """Step both optimizers; return the norm of the network's gradient before clipping."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def validate(self) -> float:
        """Compute the validation score, and copy the weights if it is the best so far."""
        score = validation_score(
            self.model, self.tokenizer, self.job.training_set, self.frames, self.settings.bf16
        )
        if score > self.best["validation_mR1"]:
            self.best = {"step": self.done, "validation_mR1": score}
            self.best_weights = self.weights()
        return score

    def weights(self) -> dict[str, Tensor]:
        """Copy the trainable weights to the CPU."""
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
        """Resume from a checkpoint; raises as `ampere.training.state.load_state`."""
        progress, self.best_weights = load_state(
            folder, self.model, self.classifier, self.optimizers
        )
        self.done, self.best, self.history = progress["done"], progress["best"], progress["history"]

    def finish(self) -> Trained:
        """Restore the best weights, fold in the adapters, and return the result on the CPU."""
        scores: Metrics = {"step": self.done} if self.best_weights is None else self.best
        last = None
        if self.best_weights is not None and self.best["step"] != self.done:
            last = self.weights()
            if self.settings.lora_rank:
                last = without_adapters(self.model, last)
            copy_tensors(trainable(self.model), self.best_weights, source="the best step")
        if self.settings.lora_rank:
            merge_lora(self.model)
        return Trained(
            model=self.model.cpu().eval(),
            last=last,
            classifier=self.classifier.cpu(),
            scores=scores,
        )


def combined_seed(*numbers: int) -> int:
    """Combine numbers into a seed of 32 bits for torch's generators."""
    return zlib.crc32(repr(numbers).encode())


class MetricsWindow:
    """Mean losses, gradient norm, time and waiting time of the steps since it was opened."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Start a new window, without steps."""
        self.start = time.perf_counter()
        self.step_metrics: list[Tensor] = []
        self.waited = 0.0

    def start_waiting(self) -> None:
        """Mark the time from which on the step waits for its batch."""
        self.waiting_since = time.perf_counter()

    def stop_waiting(self) -> None:
        """Add the time since `start_waiting` to the waiting time."""
        self.waited += time.perf_counter() - self.waiting_since

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Add a step: its losses, float32 [2], and gradient norm, float32 [].

        They stay on their device and are not read, since that would wait for the step to finish.
        """
        self.step_metrics.append(torch.cat([losses, norm[None]]))

    def close(self) -> Metrics:
        """Combine all ranks: mean losses and norm, and the times of the slowest. A collective."""
        # The contrastive loss of the whole batch is the mean over ranks (ampere.losses.contrastive)
        means = torch.stack(self.step_metrics).mean(dim=0)
        if dist.is_initialized():
            dist.all_reduce(means)
            means /= dist.get_world_size()
        # Reading the values waits for the device, so the time below covers finished steps.
        contrastive, classifier, norm = means.tolist()
        seconds = time.perf_counter() - self.start
        times = means.new_tensor([seconds / len(self.step_metrics), self.waited / seconds])
        if dist.is_initialized():
            dist.all_reduce(times, dist.ReduceOp.MAX)
        seconds_per_step, waiting_share = times.tolist()
        return {
            "contrastive": contrastive,
            "classifier": classifier,
            "gradient_norm": norm,
            "seconds_per_step": seconds_per_step,
            "waiting_share": waiting_share,
        }


def rank_device(gpus: float) -> torch.device:
    """Return this rank's device: the CPU, or the current GPU.

    Ray Train sets the current GPU of each worker; torchrun leaves that to the process.
    """
    if gpus and dist.is_torchelastic_launched():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda" if gpus else "cpu")


def check_products(products: int, ranks: int) -> None:
    """Raise ValueError if there are fewer than two training products per rank."""
    if products < 2 * ranks:
        raise ValueError(
            f"too few training products with samples of two domains: {products}; expected at least "
            f"{2 * ranks}. Check product_id in the manifest, and that `ampere decode` has finished."
        )


def check_batch(train: TrainSettings, products: int, ranks: int) -> None:
    """Raise ValueError if ranks cannot have equal shares of a batch.

    Few products are cut to a batch that more numbers of ranks divide: see `whole_batch`.
    """
    if whole_batch(train, products, ranks) % ranks != 0:
        raise ValueError(
            f"train.batch_size is {train.batch_size}; expected a multiple of the {ranks} ranks, "
            "which all take the same number of products. Change --train.batch-size."
        )


def check_finite(metrics: Metrics) -> None:
    """Raise FloatingPointError if a metric is infinite or NaN."""
    if not all(math.isfinite(value) for value in metrics.values()):
        raise FloatingPointError(
            f"loss or gradient is not finite at step {metrics['step']}: contrastive "
            f"{metrics['contrastive']}, classifier {metrics['classifier']}, gradient norm "
            f"{metrics['gradient_norm']}; expected finite numbers. Try a smaller learning rate or "
            "more warm-up."
        )


def build_model(job: TrainJob) -> Network:
    """Build the `Network` with its initial weights, in training mode.

    Raises:
        ValueError: there are epochs to train, and no trainable weights; or no layers for LoRA.
        OSError: pretrained weights are not found.
    """
    model = build_network(job.model, job.tokenizer, use_text=job.train.text != "none").train()
    if job.start is not None:
        copy_fitting_weights(model, load_weights(job.start), source=str(job.start))
    if job.train.epochs and job.train.lora_rank:
        add_lora(model, job.train.lora_rank)
    if job.train.epochs and not trainable(model):
        raise ValueError(
            f"model.network {job.model.network} has no weights to train with these settings, and "
            f"train.epochs is {job.train.epochs}; expected 0. Set --train.epochs 0, or "
            "--model.linear-layer true."
        )
    return model


def build_on_all_ranks(job: TrainJob) -> Network:
    """Run `build_model` on every rank. A collective.

    Raises:
        OSError: a rank cannot load the weights, as when only the other machines have the file. All
            ranks raise it, since the others would otherwise wait for that rank forever.
        ValueError: as `build_model`, on all ranks alike.
    """
    model, error = None, ""
    try:
        model = build_model(job)
    except OSError as failure:
        error = str(failure) or type(failure).__name__
    errors = [error]
    if dist.is_initialized():
        errors = [""] * dist.get_world_size()
        dist.all_gather_object(errors, error)
    for rank, message in enumerate(errors):
        if message:
            raise OSError(f"rank {rank} cannot load the initial weights: {message}")
    assert model is not None
    return model


def build_optimizers(
    model: Network, classifier: PartialFC, settings: TrainSettings
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Build the network's AdamW and the class centers' optimizer.

    AdamW has the paper's learning rate for each part of the network. Biases and norms have no
    weight decay.
    """
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
            if chosen:
                groups.append({"params": chosen, "lr": rates[name], "weight_decay": decay})
    # A network without weights of its own has an optimizer without parameters.
    model_optimizer = torch.optim.AdamW(groups or [{"params": []}])
    classifier_optimizer = build_classifier_optimizer(classifier, settings.lr_rest)
    for optimizer in (model_optimizer, classifier_optimizer):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return model_optimizer, classifier_optimizer


def set_learning_rates(optimizers: tuple[torch.optim.Optimizer, ...], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


def learning_rate_factor(step: int, steps: int, warmup_steps: float) -> float:
    """Factor on the peak learning rates: linear warm-up, then half a cosine down to zero.

    It differs from `transformers.get_cosine_schedule_with_warmup`, whose first step has rate 0:
    here step 0 has 1 / warmup_steps, so that no step is spent without an update. As a function of
    the step it has no state to save in a checkpoint.

    >>> [round(learning_rate_factor(s, 10, 2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1.0, steps - warmup_steps)))
