"""What a server counts, for Prometheus."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Counters:
    """Of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "corpus_teacher"
        self.requests = Counter(
            f"{prefix}_requests", "Requests that were answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "From a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests_of, self.seconds_of = cache(self.requests.labels), cache(self.seconds.labels)  # few, often asked
        self.refused = Counter(
            f"{prefix}_refused", "Requests sent away: the queue was full, or slow.", ("why",), registry=self.registry
        )
        self.positions = Counter(f"{prefix}_positions", "Positions asked of the engine.", registry=self.registry)
        self.engine_s = Counter(
            f"{prefix}_engine_seconds", "Spent in the engine, of all threads.", registry=self.registry
        )
        self.batch_requests = Histogram(
            f"{prefix}_batch_requests",
            "Requests joined in one call of the engine.",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.waiting = Gauge(f"{prefix}_waiting_requests", "Requests that wait.", registry=self.registry)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
