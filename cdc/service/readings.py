"""How the numbers of /metrics are found in a report of `cdc.service.observed`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from cdc.model.standing import State

Report = dict[str, Any]
Value = float | tuple[int, float]  # a tuple is a summary's count and sum
Samples = Iterable[tuple[tuple[str, ...], Value]]  # each with the values of the metric's own labels
Read = Callable[[Report], Samples]


def one(*path: str) -> Read:
    """A number of a report, unless it is not there or not known."""

    def read(report: Report) -> Samples:
        found: Any = report
        for key in path:
            found = found.get(key) if found is not None else None
        if found is not None:
            yield (), float(found)

    return read


def of_tables(*keys: str) -> Read:
    """Numbers of each table; with several, each has its key as the value of another label."""

    def read(report: Report) -> Samples:
        for table, entry in report["tables"].items():
            for key in keys:
                if entry[key] is not None:
                    yield (table,) if len(keys) == 1 else (table, key), float(entry[key])

    return read


def truth(found: Callable[[Report], object]) -> Read:
    """1 if something of a report is so, otherwise 0."""
    return lambda report: [((), float(bool(found(report))))]


def which(states: Iterable[str], found: Callable[[Report], object]) -> Read:
    """1 for the state that it is in, 0 for each other one; nothing if that is not known."""

    def read(report: Report) -> Samples:
        state = found(report)
        return [((name,), float(name == state)) for name in states] if state is not None else []

    return read


def source_up(report: Report) -> Samples:
    """1 if the source has answered, 0 if it has not; nothing before it was asked."""
    if report["origin"]["asked_at"] is not None:
        yield (), float("source" not in report)


def of_segments(what: str) -> Read:
    """A summary of the segments that were applied: `seconds` or `bytes`."""
    return lambda report: [((), (report["segments"]["count"], float(report["segments"][what])))]


def tables_by_state(report: Report) -> Samples:
    """How many tables are in each state."""
    counts = Counter(entry["state"] for entry in report["tables"].values())
    return [((state.value,), float(counts[state])) for state in State]


def table_states(report: Report) -> Samples:
    """1 for the state of each table."""
    return [((table, str(entry["state"])), 1.0) for table, entry in report["tables"].items()]


def differences(what: str, size: Callable[[Any], float]) -> Read:
    """What the last verification has found of each table."""

    def read(report: Report) -> Samples:
        found = (report["verification"] or {}).get(what, {})
        return [((table,), size(entry)) for table, entry in found.items()]

    return read


def total_of_verification(what: str) -> Read:
    """The same of all tables together."""

    def read(report: Report) -> Samples:
        if report["verification"] is not None:
            yield (), float(sum(report["verification"][what].values()))

    return read
