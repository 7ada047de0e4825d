"""/metrics: what is declared is what is said, is described, and is all that the dashboard and the alerts ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cdc.engine.pipeline import Pipeline
from cdc.engine.views import VerificationView
from cdc.errors import Unavailable
from cdc.model.schema import TableName
from cdc.service.exposition import registry
from cdc.service.metrics import METRICS, PIPELINE, Kind, markdown
from cdc.service.observed import ObservedPipeline, ObservedProcess
from cdc.service.pace import Decline, Pace

DOCS = Path(__file__).parents[1] / "docs"
SERIES = {
    name
    for metric in METRICS
    for name in ([f"{metric.name}_sum", f"{metric.name}_count"] if metric.kind is Kind.SUMMARY else [metric.name])
}


def test_the_page_is_made_from_the_table() -> None:
    """docs/metrics.md; it is written with
    `.venv/bin/python -c 'from cdc.service.metrics import markdown; print(markdown(), end="")' >docs/metrics.md`."""
    assert (DOCS / "metrics.md").read_text() == markdown()


def test_names_are_those_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/: base units, and `_total` for what only grows."""
    for metric in METRICS:
        assert re.fullmatch(r"(cdc|process)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert not re.search(r"_(ms|milliseconds|minutes|mb|megabytes|kb)(_|$)", metric.name)
        assert metric.meaning.endswith(".")
        assert metric.advice.endswith(".")
        assert not set(metric.labels) & set(PIPELINE)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def unused() -> Pipeline:
    def make() -> Any:
        raise AssertionError

    return Pipeline(make, make, queue_bytes=1)


def observed() -> tuple[ObservedProcess, Pipeline]:
    """A pipeline of whose every number something is known, and its feed; neither of them runs."""
    process, pipeline = ObservedProcess(), unused()
    one = ObservedPipeline("postgresql://me:secret@nowhere/shop", "clickhouse://me:secret@house/x?y=z", "shop", 60.0)
    one.attach(pipeline)
    one.feed("jsonl:/nowhere/x.jsonl", "journal:/nowhere").attach(unused())
    process.add(one)
    view = pipeline.view()
    table = view.table(TableName("public", 'o"dd\n'))
    table.inserted, table.rows_estimated, table.rows_copied = 7, 100, 40
    view.verification = VerificationView(5.0, 9, {"public.t": 2}, {"public.u": "no key"}, {"public.t": ["a", "b"]})
    view.rows_copied, view.checkpoint_at = 40, 3.0
    return process, pipeline


def said(process: ObservedProcess) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry(process)).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_all_that_is_said_is_declared() -> None:
    process, _ = observed()
    found = said(process)
    assert set(found) <= SERIES
    labels = {metric.name: (*PIPELINE, *metric.labels) for metric in METRICS if metric.read is not None}
    for name, samples in found.items():
        for given, _value in samples:
            base = name.removesuffix("_sum").removesuffix("_count") if name not in labels else name
            assert set(given) == set(labels.get(base, ()))


def test_what_is_said() -> None:
    """Names of tables that need to be escaped come back as they were; nothing that is secret is in a label."""
    process, pipeline = observed()
    found = said(process)
    of = {"pipeline": "shop", "target": "clickhouse://house/x"}
    table = {**of, "table": str(TableName("public", 'o"dd\n'))}
    assert ({**table, "operation": "inserted"}, 7.0) in found["cdc_table_rows_total"]
    assert (table, 40.0) in found["cdc_copy_rows"]
    assert ({**of, "state": "copying"}, 1.0) in found["cdc_tables"]
    assert ({**of, "state": "held"}, 0.0) in found["cdc_tables"]
    assert (of, 2.0) in found["cdc_verification_different_rows"]
    assert ({**of, "table": "public.t"}, 2.0) in found["cdc_verification_table_shape_differences"]
    assert "cdc_slot_safe_bytes" not in found  # nobody has asked the source
    assert {labels["target"] for labels, _ in found["cdc_pipeline_ready"]} == {
        "clickhouse://house/x",
        "jsonl:/nowhere/x.jsonl",
    }
    assert "secret" not in json.dumps(process.document())
    pipeline.view().fail(Unavailable("The line is cut.", hint="Mend it."), is_red=False)
    assert (of, 1.0) in said(process)["cdc_pipeline_failing"]


def test_failures_are_remembered_once_each() -> None:
    """The same one again and again is one entry, which says how often it was seen."""
    process, pipeline = observed()
    (one,) = process.pipelines.values()
    for message in ("The line is cut.", "The line is cut.", "The server is starting."):
        pipeline.view().fail(Unavailable(message, hint="Wait."), is_red=False)
        one.look()
        one.look()
    errors = one.report()["errors"]
    assert [(error["message"], error["times"], error["remedy"]) for error in errors] == [
        ("The server is starting.", 1, "Wait."),
        ("The line is cut.", 2, "Wait."),
    ]


def test_a_pace() -> None:
    """Rows per second over the last ten seconds; what is copied again begins at 0 and is no negative pace."""
    pace = Pace()
    assert pace.per_second("t") == 0
    for second in range(30):
        pace.see(float(second), {"t": second * 5})
    assert pace.per_second("t") == pytest.approx(5)
    assert pace.per_second("u") == 0
    pace.see(30.0, {"t": 0})
    assert pace.per_second("t") == 0


def test_a_decline() -> None:
    """Nothing is predicted before half a minute, of what has no limit, or of what does not become less (O41)."""
    decline = Decline()
    assert decline.seconds_left is None
    for second in range(0, 100, 10):
        decline.see(float(second), 1000 - second)
        assert (decline.seconds_left is None) == (second < 30)
    assert decline.seconds_left == pytest.approx(910)
    decline.see(100.0, 1000)
    assert decline.seconds_left is None
    decline.see(110.0, 0)
    assert decline.seconds_left == 0
    decline.see(120.0, None)
    assert decline.seconds_left is None
