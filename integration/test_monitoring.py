"""docs/grafana by Prometheus' own tool: rules and the queries of the dashboard are such, and the rules fire when they should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from integration.watched import promtool

HERE = Path(__file__).parent
GRAFANA = HERE.parent / "docs" / "grafana"


def test_the_alerts_are_rules_that_fire(tmp_path: Path) -> None:
    """A pipeline that is behind, a slot that will be lost (O41), a process that has ended."""
    for file in (GRAFANA / "alerts.yaml", HERE / "alerts.test.yaml"):
        shutil.copy(file, tmp_path)
    assert "16 rules found" in promtool("check", "rules", str(tmp_path / "alerts.yaml"))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "alerts.test.yaml"))


def test_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """As rules that nobody has, with what Grafana puts in the place of its variables."""
    panels = json.loads((GRAFANA / "cdc.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    filled = [
        text.replace("$pipeline", ".*").replace("$target", ".*").replace("$__rate_interval", "1m") for text in queries
    ]
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(filled)]
    (tmp_path / "queries.yaml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "queries.yaml"))
    assert not any("$" in text for text in filled)
