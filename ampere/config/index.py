"""Settings of `ampere index`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ampere.config.checks import require, require_name

IndexType = Literal["flat", "ivf-flat", "ivf-pq", "hnsw"]
Engine = Literal["faiss", "milvus"]
MILVUS_TYPES = ("auto", "flat", "hnsw")
# Settings of the engine faiss alone, and their defaults.
FAISS_ONLY = {
    "max_memory_gb": None,
    "max_latency_ms": None,
    "shards": 1,
    "delta_share": 0.1,
    "gpu": False,
}


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Which embeddings an index holds, and the limits that it must meet."""

    model: str = "ampere"
    """Name of the model under models/ whose embeddings are indexed."""
    engine: Engine = "faiss"
    """Engine that searches: faiss, on files of the workspace, or milvus, a server."""
    uri: str = ""
    """Where Milvus is: http://HOST:PORT of a server, or the path of a milvus-lite file, x.db.
    A server's token is read from the environment variable MILVUS_TOKEN."""
    split: Literal["test", "train", "all"] = "all"
    """Split of the samples to index; all: both."""
    type: Literal["auto", "flat", "ivf-flat", "ivf-pq", "hnsw"] = "auto"
    """Type of index. A few hundred vectors are searched exactly with every type of faiss; milvus
    has auto, flat and hnsw.
    auto: flat below a million vectors, else the fastest type that meets the limits when measured.
    flat: exact search.
    ivf-flat, ivf-pq, hnsw: the approximate FAISS types."""
    target_recall: float = 0.99
    """Recall@10 against exact search (0-1) that an index must reach to be published."""
    max_memory_gb: float | None = None
    """Memory limit per domain index or shard, in gigabytes, with the ids of its rows; None: no
    limit."""
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
    """Number of bases, or of Milvus's collections, to keep for rollback; at least 2."""

    def __post_init__(self) -> None:
        require_name("index.model", self.model)
        require_engine("index.", self.engine, self.uri)
        if self.engine == "milvus":
            self._check_milvus()
            if self.uri.endswith(".db"):  # read later from other folders
                object.__setattr__(self, "uri", str(Path(self.uri).expanduser().resolve()))
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

    def _check_milvus(self) -> None:
        require(
            self.type in MILVUS_TYPES,
            f"index.type is {self.type}; the engine milvus has {', '.join(MILVUS_TYPES)}",
        )
        for name, default in FAISS_ONLY.items():
            value = getattr(self, name)
            require(
                value == default,
                f"index.{name} is {value}; the engine milvus does not have it, leave it out",
            )


def require_engine(prefix: str, engine: Engine, uri: str) -> None:
    """Raise ValueError unless an engine has a URI if and only if it needs one.

    Args:
        prefix: of the settings' names in the message.
        engine: the engine.
        uri: of Milvus; empty: none.
    """
    if engine == "faiss":
        require(not uri, f"{prefix}uri is {uri}, but {prefix}engine is faiss; did you mean milvus?")
        return
    require(
        uri.endswith(".db") or uri.startswith(("http://", "https://")),
        f"{prefix}uri is {uri!r}; the engine milvus needs http://HOST:PORT, https://HOST:PORT, or "
        "the path of a file that ends with .db",
    )
