"""Reading audit files as an auditor would: every line, in order, and what the tables hold after them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Tables = dict[str, dict[str, Any]]


def files(path: Path) -> list[Path]:
    """The files of a target in the order of their lines."""
    return [path, *sorted(path.parent.glob(f"{path.name}.[0-9]*"))]


def read(path: Path) -> list[Event]:
    """Every event; each line must be whole."""
    return [event for event in lines(path) if event["op"] != "schema"]


def lines(path: Path) -> list[Event]:
    """The same with the shapes of tables."""
    return [json.loads(line) for file in files(path) for line in file.read_bytes().splitlines()]


def assert_in_order(events: list[Event]) -> None:
    """No identity comes twice; the ordinals of a transaction have no gap; no transaction is taken up again."""
    identities = [event["id"] for event in events]
    assert len(set(identities)) == len(identities)
    changes = [event for event in events if event["op"] not in ("copy", "reset", "note", "gap", "drop")]
    seen: set[str] = set()
    at, ordinal, total = "", 0, None
    for event in changes:
        if event["position"] != at:
            assert total in (None, ordinal), f"{at} ended after {ordinal} of {total} changes"
            assert event["position"] not in seen, f"{event['position']} came before"
            seen.add(event["position"])
            at, ordinal = event["position"], 0
        assert event["ordinal"] == ordinal
        ordinal, total = ordinal + 1, event["total"]


def replay(events: list[Event]) -> Tables:
    """The rows of each table with a key, by their keys as JSON."""
    tables: Tables = {}
    for event in events:
        if event["op"] in ("note", "gap"):
            continue
        table = tables.setdefault(event["table"], {})
        if event["op"] in ("reset", "truncate", "drop"):
            table.clear()
            continue
        key = json.dumps(event["key"])
        if event["op"] == "delete":
            table.pop(key, None)
            continue
        before = event["before"]
        old_key = json.dumps({name: before[name] for name in event["key"]}) if before is not None else key
        old = table.pop(old_key, {})
        row = dict(event["after"])
        for name in event["unchanged"]:
            row[name] = old.get(name)
        table[key] = row
    return tables
