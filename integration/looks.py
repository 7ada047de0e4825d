"""What `cdc status --json` says, asked in this process: a scene asks at each of its moments, for which a process of its own
would take too long."""

from __future__ import annotations

from typing import Any

import orjson

from cdc.service.health import look


def status_now(source: str, target: str, name: str, max_lag: float = 0.0) -> dict[str, Any]:
    """The report. By default a backlog counts at once when nobody works on it.

    Raises:
        CdcError: it ends in that.
    """
    report, _ = look(source, target, name, max_lag, require_running=False)
    found: dict[str, Any] = orjson.loads(orjson.dumps(report))
    assert found["healthy"] == (not found["problems"]) == (found["health"] != "red"), found
    return found
