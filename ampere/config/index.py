"""Settings of `ampere index`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require

IndexType = Literal["flat", "ivf-flat", "ivf-pq", "hnsw"]


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Which embeddings an index holds, and what it must be able to do."""

    model: str = "ampere"
    split: Literal["test", "train", "all"] = "all"
    type: Literal["auto", "flat", "ivf-flat", "ivf-pq", "hnsw"] = "auto"
    """flat: exact. auto: exact below a million vectors, else the fastest that keeps to the limits when measured. A few
    hundred vectors are searched exactly with every type."""
    target_recall: float = 0.99
    """Share of exact search's ten best answers that must be found; an index that finds fewer is not published."""
    max_memory_gb: float | None = None
    """Of each domain's index, or of a shard of it, with the rows that its answers show."""
    max_latency_ms: float | None = None
    """Of one query alone on one core."""
    shards: int = 1
    """Parts of each domain's index, by a checksum of the sample's id, so that several machines can hold it in memory;
    the build takes one that holds all vectors."""
    delta_share: float = 0.1
    """Changes up to this share of a base are kept beside it; more, and the index is built anew. 0: always anew."""
    gpu: bool = False
    """Inverted files find their lists on this machine's GPUs (faiss-gpu); what is built is searched on CPUs."""
    keep: int = 3
    """Versions that stay, to roll back to; 2 at least."""

    def __post_init__(self) -> None:
        require(
            0 < self.target_recall <= 1,
            f"index.target_recall is {self.target_recall}; it must be in (0, 1]",
        )
        for name in ("max_memory_gb", "max_latency_ms"):
            value = getattr(self, name)
            require(value is None or value > 0, f"index.{name} is {value}; it must be above 0")
        require(self.shards >= 1, f"index.shards is {self.shards}; it must be at least 1")
        require(
            self.keep >= 2,
            f"index.keep is {self.keep}; it must be at least 2, since a search may be opening the version before",
        )
        require(
            0 <= self.delta_share < 1,
            f"index.delta_share is {self.delta_share}; it must be in [0, 1)",
        )
