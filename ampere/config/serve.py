"""Settings of `ampere serve`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The HTTP search endpoint."""

    model: str = "ampere"
    host: str = "127.0.0.1"
    port: int = 8000
    max_upload_mb: int = 64
    """Largest accepted upload, in megabytes."""
    embedder_replicas: int = 1
    searcher_replicas: int = 1
    cpus: float = 1.0
    """CPU cores per embedder."""
    gpus: float = 0.0
    """GPUs per embedder."""
