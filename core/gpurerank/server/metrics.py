"""What a server counts, for Prometheus. No label holds anything that a client sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpurerank.engine.stats import EngineStats
from gpurerank.server.connections import Connections
from gpurerank.server.models import ServedModels

# A request may take 120 s by default, and longer with --answer-s.
_SECONDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0),
)


class Metrics(Collector):
    """Counters of requests, the state of engines and process at each scrape.

    A collector itself, of what ``/metrics`` shows.
    """

    def __init__(self, models: ServedModels) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter(
            "gpurerank_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "gpurerank_request_seconds",
            "From headers to answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "gpurerank_stage_seconds",
            "Stages of a request.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.usage_tokens = Counter(
            "gpurerank_usage_tokens",
            "Tokens of answered requests as reported in their usage, remembered or not.",
            registry=registry,
        )
        self.model_tokens = Counter(
            "gpurerank_tokens_read",
            "Tokens that models ran for answered requests; remembered results are not run.",
            registry=registry,
        )
        self.passages = Counter(
            "gpurerank_passages", "Passages and texts of admitted requests.", registry=registry
        )
        self.rejected = Counter(
            "gpurerank_rejected", "Requests not served.", ["reason"], registry=registry
        )
        self.cancelled = Counter(
            "gpurerank_cancelled", "Requests whose client left first.", registry=registry
        )
        self.queued_tokens = Gauge(
            "gpurerank_queued_tokens",
            "Tokens (estimated) admitted and not answered.",
            registry=registry,
        )
        self.registry.register(_EngineCollector(models))

    def watch(self, connections: Connections) -> None:
        """Adds what is known of a server's connections."""
        self.registry.register(_ConnectionCollector(connections))

    def collect(self) -> Iterator[Metric]:
        """Every family without the time of its creation, which doubles the number of series."""
        for family in self.registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class _ConnectionCollector(Collector):
    """Reads the connections of a server when it is scraped."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """Two families without labels."""
        yield GaugeMetricFamily(
            "gpurerank_open_connections", "Open connections.", len(self._connections)
        )
        yield CounterMetricFamily(
            "gpurerank_evicted_connections",
            "Idle connections that were closed to accept others.",
            self._connections.evicted,
        )


_OF_ENGINES: tuple[
    tuple[
        str,
        str,
        type[CounterMetricFamily] | type[GaugeMetricFamily],
        Callable[[EngineStats], float],
    ],
    ...,
] = (
    ("batches", "Batches that have run.", CounterMetricFamily, lambda s: s.batches),
    ("batch_items", "Pairs and texts in them.", CounterMetricFamily, lambda s: s.items),
    ("batch_tokens", "Tokens in them.", CounterMetricFamily, lambda s: s.tokens),
    ("batch_padding_tokens", "Padding in them.", CounterMetricFamily, lambda s: s.padding),
    ("busy_seconds", "Time of batches, summed.", CounterMetricFamily, lambda s: s.busy_s),
    ("waiting_items", "Without a result yet.", GaugeMetricFamily, lambda s: s.waiting_items),
    ("tokens_per_second", "Of the last batches.", GaugeMetricFamily, lambda s: s.tokens_per_s),
    ("heartbeat_age_seconds", "Of busy devices.", GaugeMetricFamily, lambda s: s.heartbeat_age_s),
)


class _EngineCollector(Collector):
    """Reads the engines when it is asked, so that nothing is counted twice."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """One sample a model."""
        found = list(engines(self._models))
        for name, told, kind, value in _OF_ENGINES:
            family = kind(f"gpurerank_{name}", told, labels=["model", "kind"])
            for model, role, stats in found:
                family.add_metric([model, role], value(stats))
            yield family
        yield from self._cache()

    def _cache(self) -> Iterator[Metric]:
        cache = self._models.cache
        family = CounterMetricFamily(
            "gpurerank_cached_scores", "Scores looked up.", labels=["found"]
        )
        if cache is not None:
            family.add_metric(["yes"], cache.hits)
            family.add_metric(["no"], cache.misses)
        yield family


def engines(models: ServedModels) -> Iterator[tuple[str, str, EngineStats]]:
    """Name, kind and state of every model's engine."""
    for name, reranker in models.rerankers.items():
        for role, stats in (
            ("cross-encoder", reranker.stats()),
            ("late-interaction", reranker.late_stats()),
        ):
            if stats is not None:
                yield name, role, stats
    for name, embedder in models.embedders.items():
        yield name, "bi-encoder", embedder.stats()
