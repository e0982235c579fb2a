"""Metrics of a gateway replica in the format of Prometheus."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ampere.pipeline.metrics import SEARCH_STEP, observe

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """What a gateway replica counts and measures.

    Args:
        replica: its name, a label of all metrics.
    """

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica = replica
        self._requests = Counter(
            "ampere_requests",
            "HTTP requests",
            ["replica", "method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ampere_request_seconds",
            "Time from a request to the end of its answer",
            ["replica", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._steps = Histogram(
            "ampere_step_seconds",
            "Time of a step of a query: understand, prepare, embed, search, total",
            ["replica", "step"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "ampere_refused",
            "Requests that were refused before their work",
            ["replica", "status"],
            registry=self.registry,
        )
        self._gauges: dict[str, Gauge] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; status 0: the client left before its answer."""
        known = method if method in METHODS else "other"
        self._requests.labels(self._replica, known, route, str(status)).inc()
        self._seconds.labels(self._replica, route).observe(seconds)

    def steps(self, steps_ms: Mapping[str, float]) -> None:
        """Record the times of a query's steps, also in Ray's export, which has all replicas."""
        for name, time in steps_ms.items():
            self._steps.labels(self._replica, name).observe(time / 1e3)
            observe(SEARCH_STEP, time / 1e3, step=name)

    def refused(self, status: int) -> None:
        """Count a request that was refused."""
        self._refused.labels(self._replica, str(status)).inc()

    def set(self, name: str, help: str, value: float) -> None:
        """Set a value that goes up and down."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, help, ["replica"], registry=self.registry)
        self._gauges[name].labels(self._replica).set(value)

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
