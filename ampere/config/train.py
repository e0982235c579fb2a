"""Settings of `ampere train`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require, require_name
from ampere.config.summarize import TextSource


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Training of the multimodal embedding model."""

    name: str = "ampere"
    """Name of the model; it is saved under models/NAME."""
    text: TextSource = "llm"
    """Text input of clips: the summaries of a method, or none (frames only)."""
    summary_model: str = ""
    """Model whose summaries are read, as the summaries table names it, such as qwen3-8b.
    Empty: the only one that has any."""
    supervision: Literal["products", "frames", "training-frames"] = "products"
    """Which pairs are positives. The last two require --train.text none.
    products: samples of one product.
    frames: a frame and its whole sample, for pretraining on all samples, test and unlabeled too.
    training-frames: like frames, for samples of the training split only."""
    start_from: str = ""
    """Name of a model under models/ to start from; weights of other shapes are skipped.
    Empty: from scratch."""
    lora_rank: int = 0
    """Rank of LoRA adapters, which are trained in place of a tower's published weights.
    0: train all weights, as in the paper. Frozen towers and those from scratch have no adapters."""
    domains: tuple[Literal["page", "short", "live"], ...] = ("page", "short", "live")
    """Domains to train on; at least two."""
    data_share: float = 1.0
    """Share of the training products to train on (0-1), chosen by a checksum of their id.
    A smaller share is a part of every larger one; validation products stay the same."""
    epochs: int = 70
    """Number of epochs; 0 saves the initial weights."""
    batch_size: int = 128
    """Products per step over all workers; a product contributes one sample per domain."""
    workers: int = 1
    """Number of training processes (DDP ranks)."""
    min_workers: int = 0
    """Fewest workers to train on while the cluster has no place for all, as after a node is lost.
    It must divide the batch size. 0, or more than train.workers: wait until there is a place for
    all."""
    cpus: float = 1.0
    """CPU cores per worker."""
    gpus: float = 0.0
    """GPUs per worker; 0: the CPU, with gloo."""
    lr_text: float = 5e-5
    """Peak learning rate of the text tower."""
    lr_video: float = 1e-5
    """Peak learning rate of the vision tower and the temporal blocks."""
    lr_fusion: float = 5e-5
    """Peak learning rate of the fusion blocks."""
    lr_rest: float = 5e-3
    """Peak learning rate of all other weights, class centers included."""
    warmup_epochs: float = 4.0
    """Epochs of linear learning-rate warmup; cosine decay follows."""
    weight_decay: float = 0.05
    """AdamW weight decay; biases and norms are not decayed."""
    max_grad_norm: float = 5.0
    """Largest norm of the gradients; larger ones are scaled down to it."""
    temperature: float = 0.05
    """Temperature of the contrastive loss."""
    label_smoothing: float = 0.1
    """Label smoothing of the contrastive loss (0-1)."""
    margin: float = 0.4
    """CosFace margin of the product classifier."""
    scale: float = 64.0
    """CosFace scale of the product classifier."""
    classifier_weight: float = 1.0
    """Weight of the product classifier's loss, relative to the contrastive loss."""
    crop_scale: float = 0.64
    """Smallest share of the image area that random crops keep (0-1)."""
    colour_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation (0-1); not in the paper."""
    text_dropout: float = 0.0
    """Share of texts dropped in training (0-1), to learn to work without text; not in the paper."""
    frame_dropout: float = 0.0
    """Share of samples with text whose frames are dropped in training (0-1); not in the paper.
    The model learns to work with words alone."""
    alone_weight: float = 0.0
    """Weight of two further contrastive losses: frames alone, and text alone, find whole samples.
    0: none, as in the paper. Models of one modality have none."""
    sample_rate: float = 1.0
    """Share of product classes in each step's softmax (0-1); below 1 for millions of products."""
    chunk_size: int = 0
    """Products per worker whose activations are in memory at once; 0: all.
    Small chunks fit a large batch on a small GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    bf16: bool = False
    """Compute matrix products in bfloat16; weights and losses stay float32."""
    compile: bool = False
    """Run torch.compile: minutes at the start, then faster steps. CPUs require a C++ compiler."""
    loader_workers: int = 2
    """Processes per worker that read, decode and crop frames; 0: a thread of the worker."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    validation_share: float = 0.05
    """Share of the training products held out for validation (0-1)."""
    validate_every: int = 500
    """Steps between validations; the best weights are saved. 0: validate at the end only."""
    checkpoint_every: int = 500
    """Steps between checkpoints, from which an interrupted training resumes. 0: never."""
    retries: int = 3
    """Automatic restarts from the last checkpoint after a worker dies."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where metrics are logged besides metrics.jsonl."""
    seed: int = 0
    """Random seed of initialization, sampling and augmentation."""

    def __post_init__(self) -> None:
        require(
            self.supervision == "products" or self.text == "none",
            f"train.supervision is {self.supervision} and train.text is {self.text}; frames have "
            "no text, so set --train.text none",
        )
        require(self.epochs >= 0, f"train.epochs is {self.epochs}; it must be at least 0")
        require(
            len(set(self.domains)) >= 2,
            f"train.domains is {self.domains}; name at least two domains",
        )
        for name in (
            "lora_rank",
            "chunk_size",
            "loader_workers",
            "validate_every",
            "checkpoint_every",
            "retries",
        ):
            require(
                getattr(self, name) >= 0,
                f"train.{name} is {getattr(self, name)}; it must be at least 0",
            )
        require(self.log_every >= 1, f"train.log_every is {self.log_every}; it must be at least 1")
        for name in ("text_dropout", "frame_dropout", "validation_share", "colour_jitter"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name} is {value}; it must be at least 0 and below 1")
        require(
            self.alone_weight >= 0,
            f"train.alone_weight is {self.alone_weight}; it must be at least 0",
        )
        require(
            0 < self.data_share <= 1,
            f"train.data_share is {self.data_share}; it must be above 0, at most 1",
        )
        require(
            self.supervision == "products" or self.data_share == 1,
            f"train.supervision is {self.supervision} and train.data_share is {self.data_share}; "
            "frames have no products to choose from, so leave out --train.data-share",
        )
        require(
            0 < self.sample_rate <= 1,
            f"train.sample_rate is {self.sample_rate}; it must be above 0, at most 1",
        )
        require(self.workers >= 1, f"train.workers is {self.workers}; it must be at least 1")
        require(
            0 < self.crop_scale <= 1,
            f"train.crop_scale is {self.crop_scale}; it must be above 0 and at most 1",
        )
        require(
            self.temperature > 0, f"train.temperature is {self.temperature}; it must be above 0"
        )
        require(
            self.batch_size >= 2 * self.workers and self.batch_size % self.workers == 0,
            f"train.batch_size is {self.batch_size}; it must be a multiple of train.workers "
            f"({self.workers}) and give each at least 2 products",
        )
        self._check_min_workers()
        require_name("train.name", self.name)
        if self.start_from:
            require_name("train.start_from", self.start_from)

    def _check_min_workers(self) -> None:
        require(
            self.min_workers >= 0,
            f"train.min_workers is {self.min_workers}; it must be at least 0",
        )
        require(
            self.batch_size % self.fewest_workers == 0,
            f"train.min_workers is {self.min_workers}; it must divide train.batch_size "
            f"({self.batch_size}), since all workers take the same number of products",
        )

    @property
    def fewest_workers(self) -> int:
        """The number of workers without which the training waits."""
        return min(self.min_workers or self.workers, self.workers)
