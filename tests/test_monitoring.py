"""docs/grafana and docs/alerts.md: they ask for metrics that there are, and each alert says what to do."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from cdc.cli.app import app
from cdc.cli.commands import load_all
from cdc.service.metrics import METRICS
from tests.test_metrics import SERIES

DOCS = Path(__file__).parents[1] / "docs"
RULES = [
    rule
    for group in yaml.safe_load((DOCS / "grafana" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "grafana" / "cdc.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
_NAME = re.compile(r"\b(?:cdc|process)_\w+")


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel.get("targets", [])]


def names(texts: list[str]) -> set[str]:
    return {name for text in texts for name in _NAME.findall(text)}


def test_all_that_is_asked_for_is_declared() -> None:
    queries = [variable.get("definition", "") for variable in DASHBOARD["templating"]["list"]]
    assert names([rule["expr"] for rule in RULES]) <= SERIES
    assert names([*expressions(), *queries]) <= SERIES
    page = (DOCS / "alerts.md").read_text()
    assert names([page]) <= SERIES | {metric.name for metric in METRICS}


def test_every_metric_of_a_pipeline_is_shown() -> None:
    """Those of a single table are shown where something is wrong with it; the others say the same in other words."""
    said_otherwise = {
        "cdc_pipeline_failing",
        "cdc_checkpoint_timestamp_seconds",
        "cdc_slot_wal_status",
        "cdc_table_truncates_total",
        "cdc_verification_rows",
        "cdc_verification_table_different_rows",
    }
    shown = {re.sub(r"_(sum|count)$", "", name) for name in names(expressions())}
    assert {metric.name for metric in METRICS if metric.name.startswith("cdc_")} - shown == said_otherwise


def test_the_dashboard_can_be_imported() -> None:
    """Panels have numbers of their own and do not lie on each other; nothing names a data source of somebody's."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "pipeline", "target"}
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
            assert all({"refId", "expr", "datasource"} <= target.keys() for target in panel["targets"])
    assert "__inputs" not in DASHBOARD
    assert "id" not in DASHBOARD


def test_every_alert_says_what_to_do() -> None:
    page = (DOCS / "alerts.md").read_text()
    sections = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        said = rule["annotations"]
        assert said["summary"].endswith(".")
        assert said["description"].endswith(".")
        assert said["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(re.findall(r"\(#(\w+)\)", page)) <= {section.lower() for section in sections}


def test_commands_that_are_advised_are_commands() -> None:
    load_all()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^    cdc (.+)$", (DOCS / "alerts.md").read_text(), re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        name, *arguments = line.partition("|")[0].split()
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, line
