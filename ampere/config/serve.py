"""Settings of `ampere serve`."""

from dataclasses import dataclass

from ampere.config.checks import require, require_name, require_port


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The HTTP search endpoint."""

    model: str = "ampere"
    """Name of the model under models/ to serve, with its index."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """TCP port to listen on."""
    max_upload_mb: int = 64
    """Largest accepted upload, in megabytes."""
    embedder_replicas: int = 1
    """Number of replicas of the embedder, each with its own copy of the model."""
    searcher_replicas: int = 1
    """Number of replicas of each searcher, each with its own copy of the index."""
    cpus: float = 1.0
    """CPU cores per embedder replica."""
    gpus: float = 0.0
    """GPUs per embedder replica; 0: the CPU."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may use the endpoint (CORS), such as https://shop.example; *: all."""

    def __post_init__(self) -> None:
        require_name("serve.model", self.model)
        require_port("serve.port", self.port)
        for name in ("max_upload_mb", "embedder_replicas", "searcher_replicas"):
            value = getattr(self, name)
            require(value >= 1, f"serve.{name} is {value}; it must be at least 1")
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            require(value >= 0, f"serve.{name} is {value}; it must not be negative")
