"""Settings of `ampere index`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require, require_name

IndexType = Literal["flat", "ivf-flat", "ivf-pq", "hnsw"]


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Which embeddings an index holds, and the limits that it must meet."""

    model: str = "ampere"
    """Name of the model under models/ whose embeddings are indexed."""
    split: Literal["test", "train", "all"] = "all"
    """Split of the samples to index; all: both."""
    type: Literal["auto", "flat", "ivf-flat", "ivf-pq", "hnsw"] = "auto"
    """Type of index. A few hundred vectors are searched exactly with every type.
    auto: flat below a million vectors, else the fastest type that meets the limits when measured.
    flat: exact search.
    ivf-flat, ivf-pq, hnsw: the approximate FAISS types."""
    target_recall: float = 0.99
    """Recall@10 against exact search (0-1) that an index must reach to be published."""
    max_memory_gb: float | None = None
    """Memory limit per domain index or shard, in gigabytes, with result rows; None: no limit."""
    max_latency_ms: float | None = None
    """Latency limit of a single query on one core, in milliseconds; None: no limit."""
    shards: int = 1
    """Number of shards per domain index, so that several machines can hold it in memory.
    A checksum of the sample id selects the shard. Building holds all vectors on one machine."""
    delta_share: float = 0.1
    """Rows that may have changed since the last base, as a share of it (0-1), before a new one is
    built; until then they are searched exactly. 0: any change causes a new base."""
    gpu: bool = False
    """Build inverted lists on this machine's GPUs (requires faiss-gpu); search runs on CPUs."""
    keep: int = 3
    """Number of bases to keep for rollback; at least 2."""

    def __post_init__(self) -> None:
        require_name("index.model", self.model)
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
            f"index.keep is {self.keep}; it must be at least 2, since a search may be opening the "
            "previous one",
        )
        require(
            0 <= self.delta_share < 1,
            f"index.delta_share is {self.delta_share}; it must be in [0, 1)",
        )
