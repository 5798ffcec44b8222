"""A replica's counters in Ray's own metrics, where every replica of the cluster is seen."""

from __future__ import annotations

from typing import Any

from prometheus_client.registry import Collector
from ray.serve.metrics import Gauge

# Ray has metrics of its processes already.
_PREFIX = "gpurerank_"


class Exported:
    """The samples of a server's metrics as gauges, which Ray tags with application and replica."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Passes the current values on to Ray."""
        for family in self._metrics.collect():
            for sample in family.samples:
                if not sample.name.startswith(_PREFIX):
                    continue
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    keys: Any = tuple(sample.labels)  # declared as a tuple of one
                    gauge = Gauge(sample.name, family.documentation, keys)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
