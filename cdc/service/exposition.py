"""The metrics of this process in the client library of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cdc.service.metrics import METRICS, PIPELINE, Kind, Metric
from cdc.service.observed import ObservedProcess
from cdc.service.readings import Report, Value

_FAMILIES: dict[Kind, Callable[..., Any]] = {
    Kind.GAUGE: GaugeMetricFamily,
    Kind.COUNTER: CounterMetricFamily,
    Kind.SUMMARY: SummaryMetricFamily,
}


class _Collector(Collector):
    def __init__(self, process: ObservedProcess) -> None:
        self._process = process

    def describe(self) -> Iterable[Family]:
        """So that nothing is read only to know the names."""
        return [_family(metric) for metric in METRICS if metric.read is not None]

    def collect(self) -> Iterator[Family]:
        reports = list(_with_feeds(self._process.document()))
        for metric in METRICS:
            if metric.read is not None:
                family = _family(metric)
                for pipeline, report in reports:
                    for labels, value in metric.read(report):
                        _add(family, (pipeline, report["target"], *labels), value)
                yield family


def registry(process: ObservedProcess) -> CollectorRegistry:
    """What reads all metrics when it is asked; of this process, and apart from the library's own registry."""
    found = CollectorRegistry()
    found.register(_Collector(process))
    ProcessCollector(registry=found)
    return found


def _with_feeds(document: dict[str, Any]) -> Iterator[tuple[str, Report]]:
    for name, report in document["pipelines"].items():
        yield name, report
        for feed in report["feeds"].values():
            yield name, feed


def _family(metric: Metric) -> Any:
    return _FAMILIES[metric.kind](metric.name, metric.meaning, labels=(*PIPELINE, *metric.labels))


def _add(family: Any, labels: tuple[str, ...], value: Value) -> None:
    if isinstance(value, tuple):
        count, total = value
        family.add_metric(labels, count_value=count, sum_value=total)
    else:
        family.add_metric(labels, value)
