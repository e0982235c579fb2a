"""Settings of `ampere embed`."""

from dataclasses import dataclass

from ampere.config.checks import require, require_name, worker_range


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """Batch embedding on a pool of model actors."""

    model: str = "ampere"
    """Name of the model under models/ to embed with."""
    summary_model: str = ""
    """Model whose summaries are read, as the summaries table names it, such as qwen3-8b.
    Empty: that of the training."""
    batch_size: int = 32
    """Samples per batch."""
    workers: str = "1"
    """Number of model actors, or MIN:MAX to grow and shrink with the queue.
    With 0:MAX the pool starts with one actor, on a machine that the cluster adds for it."""
    cpus: float = 1.0
    """CPU cores per actor."""
    gpus: float = 0.0
    """GPUs per actor. 1: one GPU each; a fraction: actors share a GPU; 0: the CPU."""
    bf16: bool = False
    """Compute matrix products in bfloat16; weights and vectors stay float32."""
    compile: bool = False
    """Run torch.compile before the first batch; batches then have a fixed shape.
    It takes minutes per worker and memory for two copies of the weights: for large jobs."""
    hourly_price: float = 0.0
    """Price of one worker per hour, in any currency; 0: report no cost per million samples."""

    def __post_init__(self) -> None:
        require_name("embed.model", self.model)
        worker_range("embed.workers", self.workers, least=0)
        require(
            self.hourly_price >= 0,
            f"embed.hourly_price is {self.hourly_price}; it must not be negative",
        )
        require(
            self.batch_size >= 1, f"embed.batch_size is {self.batch_size}; it must be at least 1"
        )
