"""Asking a pipeline that runs about the past of its target, which nobody else can open meanwhile (O32)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.errors import UsageError
from cdc.jobs.control import Progress, Values
from cdc.model.schema import TableName
from cdc.observer import Observer
from cdc.tables.answers import Event, Known, Place, Row
from cdc.target import Questioned

Ask = Callable[[str, Values], Values]

_SECONDS = 30.0  # nothing is applied meanwhile
_ROWS = 100_000  # of an answer, which is in memory as a whole


class AskedHistories:
    """What `cdc.tables.histories.Histories` offers, by asking the pipeline.

    Args:
        ask: has it do one of the `cdc.jobs.requests`.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def table(self, name: str) -> Known:
        return _known(self._asked("table", name=name)["known"])

    def place(self, known: Known, at: str) -> Place:
        return Place(**self._asked("place", known=asdict(known), at=at)["place"])

    def versions(self, known: Known, key: Sequence[str]) -> list[Event]:
        found = self._asked("versions", known=asdict(known), key=list(key))["events"]
        return [Event(**{**event, "changed": tuple(event["changed"])}) for event in found]

    def as_of(self, known: Known, place: Place) -> tuple[list[str], Iterator[Row]]:
        found = self._asked("as_of", known=asdict(known), place=asdict(place))
        return found["columns"], iter(found["rows"])

    def diff(self, known: Known, before: Place, after: Place) -> Iterator[tuple[Row | None, Row | None]]:
        found = self._asked("diff", known=asdict(known), before=asdict(before), after=asdict(after))
        return ((old, new) for old, new in found["rows"])

    def _asked(self, what: str, **arguments: Any) -> Values:
        return self._ask("past", {"what": what, **arguments})


def look_back(pipeline: Pipeline, _observer: Observer, arguments: Values, _progress: Progress) -> Values:
    """Answer one of the questions of `AskedHistories`.

    Args:
        arguments: `what`, and what its method there is given.
    """

    def look(stage: Stage) -> Values:
        if not isinstance(stage.target, Questioned):
            raise UsageError(
                "This target answers every process itself.",
                hint="Run the command again: no process keeps others from this target.",
            )
        with stage.target.histories(_SECONDS) as histories:
            return _ANSWERS[arguments["what"]](histories, arguments)

    return pipeline.errand(look, patience=_SECONDS)


def _versions(histories: Any, arguments: Values) -> Values:
    events = histories.versions(_known(arguments["known"]), arguments["key"])
    return {"events": [asdict(event) for event in events]}


def _as_of(histories: Any, arguments: Values) -> Values:
    columns, rows = histories.as_of(_known(arguments["known"]), Place(**arguments["place"]))
    return {"columns": columns, "rows": _few(rows)}


def _diff(histories: Any, arguments: Values) -> Values:
    before, after = Place(**arguments["before"]), Place(**arguments["after"])
    return {"rows": _few(histories.diff(_known(arguments["known"]), before, after))}


_ANSWERS: Mapping[str, Callable[[Any, Values], Values]] = {
    "table": lambda histories, arguments: {"known": asdict(histories.table(arguments["name"]))},
    "place": lambda histories, arguments: {
        "place": asdict(histories.place(_known(arguments["known"]), arguments["at"]))
    },
    "versions": _versions,
    "as_of": _as_of,
    "diff": _diff,
}


def _few(rows: Iterator[Any]) -> list[Any]:
    found = list(islice(rows, _ROWS + 1))
    if len(found) > _ROWS:
        raise UsageError(
            f"A running pipeline answers with at most {_ROWS} rows.",
            hint="Ask a published copy: this command takes the FILE of `cdc run ... --publish FILE` as a target.",
        )
    return found


def _known(values: Values) -> Known:
    return Known(values["identity"], TableName(**values["table"]), tuple(values["key"]))
