"""Settings of `ampere train`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require
from ampere.config.summarize import TextSource


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Training of the fused model."""

    name: str = "ampere"
    """The model is saved under models/NAME."""
    text: TextSource = "llm"
    """What the text branch reads for clips: what a method of summarizing gave, the raw transcripts, or nothing (visual
    branch alone)."""
    supervision: Literal["products", "frames", "training-frames"] = "products"
    """products: samples of one product belong together. frames: one frame of a sample and the whole sample do, of all
    samples, known or not, test products' among them; a start for another training, with --train.text none.
    training-frames: the same of the training split alone."""
    start_from: str = ""
    """A model of the workspace whose weights to start from, as far as they fit; empty: from scratch."""
    domains: tuple[Literal["page", "short", "live"], ...] = ("page", "short", "live")
    """Domains that training draws from; two at least."""
    epochs: int = 70
    """0 leaves the weights as they start."""
    batch_size: int = 128
    """Products per step over all workers; a product gives one sample of each domain it has."""
    workers: int = 1
    """DDP ranks."""
    cpus: float = 1.0
    """CPU cores per rank."""
    gpus: float = 0.0
    """GPUs per rank; 0 trains on the CPU with gloo."""
    lr_text: float = 5e-5
    lr_video: float = 1e-5
    lr_fusion: float = 5e-5
    lr_rest: float = 5e-3
    warmup_epochs: float = 4.0
    weight_decay: float = 0.05
    max_grad_norm: float = 5.0
    temperature: float = 0.05
    label_smoothing: float = 0.1
    margin: float = 0.4
    """CosFace margin of the product classifier."""
    scale: float = 64.0
    """CosFace scale of the product classifier."""
    classifier_weight: float = 1.0
    """Weight of the product classifier's loss beside the contrastive loss."""
    crop_scale: float = 0.64
    """Smallest share of a picture's area that random cropping keeps."""
    colour_jitter: float = 0.0
    """Largest share by which brightness, contrast and saturation of a sample change; the paper has none."""
    text_dropout: float = 0.0
    """Share of the texts that training takes as missing, so that the model learns to do without; the paper has none."""
    sample_rate: float = 1.0
    """Share of the product classes in each step's softmax; below 1 for millions of products."""
    chunk_size: int = 0
    """Products of a rank whose activations are held at once: a large batch on a small card; 0: all of them."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than hold them."""
    bf16: bool = False
    """bfloat16 products, float32 weights and losses."""
    compile: bool = False
    """torch.compile: minutes at the start, faster steps after. On a CPU it needs a C++ compiler."""
    loader_workers: int = 2
    """Processes per rank that read, decode and crop frames; 0: a thread of the training process."""
    log_every: int = 10
    """Steps per line of metrics."""
    validation_share: float = 0.05
    """Share of the training products that judge the model instead of training it."""
    validate_every: int = 500
    """Steps; the best model is kept. 0: only at the end."""
    checkpoint_every: int = 500
    """Steps; a training that was stopped goes on from its last checkpoint. 0: never."""
    retries: int = 3
    """How often a training whose worker died goes on from its last checkpoint by itself."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where metrics go besides metrics.jsonl."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.supervision == "products" or self.text == "none",
            f"train.supervision is {self.supervision} and train.text is {self.text}; frames have no text, so set "
            "--train.text none",
        )
        require(self.epochs >= 0, f"train.epochs is {self.epochs}; it must be at least 0")
        require(
            len(set(self.domains)) >= 2,
            f"train.domains is {self.domains}; name at least two domains",
        )
        for name in (
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
        for name in ("text_dropout", "validation_share", "colour_jitter"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name} is {value}; it must be at least 0 and below 1")
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
            f"train.batch_size is {self.batch_size}; it must be a multiple of train.workers ({self.workers}) "
            "and give each at least 2 products",
        )
        require(
            bool(self.name) and self.name.replace("-", "").replace("_", "").isalnum(),
            f"train.name is {self.name!r}; use letters, digits, '-' and '_'",
        )
