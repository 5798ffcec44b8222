"""A replica's counters in Ray's own metrics, where every replica of the cluster is seen."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from ray.serve.metrics import Gauge

# Ray tells the type of each name once; what a name counts is in its ending, as for Prometheus.
_LEFT_OUT = "_created"


class Exported:
    """The samples of a registry as gauges, which Ray tags with application and replica."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Gives Ray what the registry says now."""
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name.endswith(_LEFT_OUT):
                    continue
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    keys: Any = tuple(sample.labels)  # declared as a tuple of one
                    gauge = Gauge(sample.name, family.documentation, keys)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
