"""Settings of `ampere embed`."""

from dataclasses import dataclass

from ampere.config.checks import require, worker_range


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """Batch embedding on a pool of model actors."""

    model: str = "ampere"
    """A model under models/."""
    batch_size: int = 32
    """Samples per batch."""
    workers: str = "1"
    """Model actors: a number, or MIN:MAX, which grows and shrinks with the queue. With 0:MAX the pool begins with one,
    on a machine that the cluster starts for it."""
    cpus: float = 1.0
    """CPU cores of an actor."""
    gpus: float = 0.0
    """1: an actor runs on a GPU; less: actors share one; 0: it runs on the CPU."""
    bf16: bool = False
    """bfloat16 products; float32 weights and vectors."""
    compile: bool = False
    """torch.compile before the first batch, which then has a fixed shape. It takes a worker minutes, and memory for two
    copies of the weights; for large jobs."""
    hourly_price: float = 0.0
    """Price of a worker for an hour, in any currency; the report then tells what a million samples cost."""

    def __post_init__(self) -> None:
        worker_range("embed.workers", self.workers, least=0)
        require(
            self.hourly_price >= 0,
            f"embed.hourly_price is {self.hourly_price}; it must not be negative",
        )
        require(
            self.batch_size >= 1, f"embed.batch_size is {self.batch_size}; it must be at least 1"
        )
