"""Settings of `ampere serve`."""

import ipaddress
import re
from dataclasses import dataclass

from ampere.config.checks import require, require_name, require_port


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The HTTP search endpoint."""

    model: str = "ampere"
    """Name of the model under models/ to serve, with its index."""
    also: tuple[str, ...] = ()
    """Names of further models to serve, for comparisons; a request names one by its field model."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback, each request needs an API key: see `ampere keys`."""
    port: int = 8000
    """TCP port to listen on."""
    gateway_replicas: int = 1
    """Number of replicas of the gateway, which reads requests, decodes uploads and searches."""
    embedder_replicas: int = 1
    """Minimum number of embedder replicas, each with its own copy of the model."""
    max_embedder_replicas: int = 0
    """Maximum number of embedder replicas, which are added under load; 0: the minimum."""
    searcher_replicas: int = 0
    """Minimum number of searcher replicas, each with its own copy of the index.
    0: no searchers; each gateway replica holds the index and searches, which is faster."""
    max_searcher_replicas: int = 0
    """Maximum number of searcher replicas, which are added under load; 0: the minimum."""
    hit_memory_gb: float = 1.0
    """Memory for the columns of hits, in gigabytes, for each index that a replica holds.
    If they take more, each search reads those of its hits from the workspace, which is slower."""
    cpus: float = 1.0
    """CPU cores per embedder replica."""
    gpus: float = 0.0
    """GPUs per embedder replica; 0: the CPU."""
    decoders: int = 2
    """Isolated processes per gateway replica that decode uploads at the same time."""
    max_batch: int = 16
    """Number of queries that the embedder computes at once, at most."""
    max_concurrent: int = 16
    """Number of requests that a gateway replica works on at the same time; a batch is one.
    Further ones get status 429 and the time to wait."""
    max_per_client: int = 8
    """Number of requests of one API key at the same time, per gateway replica."""
    max_upload_mb: int = 64
    """Largest accepted upload, in megabytes."""
    request_timeout_s: float = 60.0
    """Seconds after which a request is given up, its upload included; a batch has 16 times that."""
    cached_queries: int = 10_000
    """Number of queries whose vectors each gateway replica remembers; 0: none."""
    stores: tuple[str, ...] = ()
    """URI prefixes that media_uri may have, such as s3://bucket/uploads/ or https://cdn.example/."""
    private_hosts: tuple[str, ...] = ()
    """Hosts of `serve.stores` that may have private addresses; others are refused then."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may use the endpoint (CORS), such as https://shop.example; *: all."""
    transcriber: bool = False
    """Transcribe clips that are posted without text.
    The model is that of the workspace's last `ampere transcribe`."""
    summarizer: bool = False
    """Summarize transcripts of queries.
    The model is that of the workspace's last `ampere summarize`."""
    engine_timeout_s: float = 10.0
    """Time that a search waits for the transcriber, and then for the summarizer, in seconds.
    After it the search continues without, and the answer says so."""

    def __post_init__(self) -> None:
        for name in (self.model, *self.also):
            require_name("serve.model", name)
        require(
            len({self.model, *self.also}) == 1 + len(self.also),
            f"serve.also is {', '.join(self.also)}; expected models other than {self.model}, each "
            "once",
        )
        require_port("serve.port", self.port)
        for name in (
            *("gateway_replicas", "embedder_replicas", "decoders"),
            *("max_batch", "max_concurrent", "max_per_client", "max_upload_mb"),
        ):
            value = getattr(self, name)
            require(value >= 1, f"serve.{name} is {value}; it must be at least 1")
        for name in ("searcher_replicas", "hit_memory_gb", "cpus", "gpus", "cached_queries"):
            value = getattr(self, name)
            require(value >= 0, f"serve.{name} is {value}; it must not be negative")
        for role in ("embedder", "searcher"):
            least, most = getattr(self, f"{role}_replicas"), getattr(self, f"max_{role}_replicas")
            require(
                most == 0 or most >= least,
                f"serve.max_{role}_replicas is {most}; expected 0 or at least "
                f"serve.{role}_replicas, which is {least}",
            )
        require(
            self.searcher_replicas > 0 or self.max_searcher_replicas == 0,
            f"serve.max_searcher_replicas is {self.max_searcher_replicas}, but "
            "serve.searcher_replicas is 0: the gateways search. Set serve.searcher_replicas to 1 "
            "or more, or remove serve.max_searcher_replicas",
        )
        require(
            self.request_timeout_s > 0,
            f"serve.request_timeout_s is {self.request_timeout_s:g}; it must be above 0",
        )
        require(
            0 < self.engine_timeout_s < self.request_timeout_s,
            f"serve.engine_timeout_s is {self.engine_timeout_s:g}; it must be above 0, and below "
            f"serve.request_timeout_s, which is {self.request_timeout_s:g}",
        )
        for store in self.stores:
            require(
                "://" in store and store.endswith("/"),
                f"serve.stores has {store!r}; expected a URI prefix that ends with a slash, such "
                "as s3://bucket/uploads/",
            )
        for origin in self.origins:
            require(
                re.fullmatch(r"\*|https?://[^/\s]+", origin) is not None,
                f"serve.origins has {origin!r}; expected * or a scheme and a host without a path, "
                "such as https://shop.example",
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models to serve; the first is the one that requests get by default."""
        return (self.model, *self.also)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach an address to listen on.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "shop")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
