"""Alerts: which changes of a pipeline's condition a person has to hear of, each once.

An alert is a transition, not a state: while a table stays held, nothing is repeated. What lasts for a moment only, such
as a connection that is lost and back at once, is no transition.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cdc.model.standing import State

SLOT_WITHIN = 86_400.0  # seconds; how early the loss of a slot is announced where nothing else is asked for
_LEAST_USED = 0.25  # of a slot's room, before a forecast counts: a source removes its log file by file
_CALM = 1.5  # the forecast has to be so many times better before the loss can be announced again
_MOST_NAMED = 10  # tables or problems that a message names


class Event(StrEnum):
    """The kinds of alerts."""

    UNHEALTHY = "unhealthy"
    HELD = "held"
    DIFFERS = "differs"
    SLOT = "slot"
    STOPPED = "stopped"
    RECOVERED = "recovered"


# Seconds for which something has to be so before it is an alert, and not to be so before it has ended. The result of a
# verification does not come and go.
_LASTS = {Event.UNHEALTHY: 15.0, Event.HELD: 15.0, Event.DIFFERS: 0.0, Event.SLOT: 120.0}
_ENDS = {Event.UNHEALTHY: 30.0, Event.HELD: 30.0, Event.DIFFERS: 0.0, Event.SLOT: 60.0}
_WELL_FOR = 30.0


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to a person.

    Attributes:
        message: what happened and what to do, in sentences.
        tables: those that it concerns.
        at: seconds since the Unix epoch.
    """

    event: Event
    pipeline: str
    message: str
    tables: list[str] = field(default_factory=list)
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Condition:
    """What alerts are made of.

    Attributes:
        problems: why the pipeline is unhealthy, beside what is said of tables; empty if nothing else is wrong.
        held: per table that is held, why.
        different: per table that differed when it was verified last, in which way.
        slot_lost_in: seconds until the source deletes log that is still needed, if that is to be expected.
    """

    problems: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    different: Mapping[str, str] = field(default_factory=dict)
    slot_lost_in: float | None = None

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Condition:
        """That of a pipeline, by its report (`cdc.service.observed`)."""
        verification = report["verification"] or {"shapes": {}, "different": {}}
        differing = dict.fromkeys(verification["shapes"], "its shape")
        differing |= {name: f"{rows:,} rows" for name, rows in verification["different"].items()}
        return cls(
            tuple(text for text in report["problems"] if text not in report["problems_of_tables"]),
            {name: entry["reason"] for name, entry in report["tables"].items() if entry["state"] == State.HELD},
            differing,
            _slot_lost_in(report),
        )

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong now. What comes is another matter."""
        return not (self.problems or self.held or self.different)


class Alerts:
    """Makes alerts of what one pipeline's condition is from one look to the next.

    Args:
        slot_within: seconds; how early the loss of a slot is announced.
    """

    def __init__(self, pipeline: str, slot_within: float = SLOT_WITHIN) -> None:
        self._pipeline = pipeline
        self._slot_within = slot_within
        self._known: dict[Event, dict[str, _Steady]] = {}
        self._is_well = _Steady(_WELL_FOR, 0.0, is_so=True)

    def look(self, condition: Condition, now: float) -> list[Alert]:
        """The alerts that are due.

        Args:
            now: seconds on a clock that never goes back.
        """
        alerts = []
        if self._begun(Event.UNHEALTHY, [""] if condition.problems else [], now):
            alerts.append(self._alert(Event.UNHEALTHY, " ".join(_some(condition.problems))))
        if held := self._begun(Event.HELD, condition.held, now):
            whys = [f"{table} is held, and its changes are skipped: {condition.held[table]}" for table in held]
            alerts.append(self._alert(Event.HELD, " ".join(_some(whys)), held))
        if different := self._begun(Event.DIFFERS, condition.different, now):
            ways = ", ".join(_some([f"{table} ({condition.different[table]})" for table in different]))
            message = f"The last verification has found differences from the source: {ways}."
            alerts.append(self._alert(Event.DIFFERS, message, different))
        if self._begun(Event.SLOT, [""] if self._is_near(condition.slot_lost_in) else [], now):
            message = (
                f"The slot will be lost in {_duration(condition.slot_lost_in or 0.0)} if this goes on: the source "
                "keeps only so much log for it. Let the pipeline catch up, or raise max_slot_wal_keep_size."
            )
            alerts.append(self._alert(Event.SLOT, message))
        return [*alerts, *self._recovery(condition, bool(alerts), now)]

    def stopped(self, message: str) -> Alert:
        """The alert of a run that has ended because only a person may decide what happens next."""
        return self._alert(Event.STOPPED, message)

    def _alert(self, event: Event, message: str, tables: Sequence[str] = ()) -> Alert:
        return Alert(event, self._pipeline, message, list(tables))

    def _begun(self, event: Event, present: Collection[str], now: float) -> list[str]:
        """Of the things that may be so, those that have just begun to be."""
        begun: list[str] = []
        known = self._known.setdefault(event, {})
        for name in sorted({*present, *known}):
            steady = known.setdefault(name, _Steady(_LASTS[event], _ENDS[event]))
            if steady.see(name in present, now) is True:
                begun.append(name)
            elif not steady.is_so and name not in present:
                del known[name]
        return begun

    def _is_near(self, lost_in: float | None) -> bool:
        if lost_in is None:
            return False
        slot = self._known.get(Event.SLOT, {}).get("")
        is_announced = slot is not None and slot.is_so
        return lost_in < self._slot_within * (_CALM if is_announced else 1)

    def _recovery(self, condition: Condition, has_alerts: bool, now: float) -> list[Alert]:
        """All is well again, and for a while: after an alert of something that was wrong."""
        if has_alerts and not condition.is_well:
            self._is_well.see(False, now)
            return []
        if self._is_well.is_so or not self._is_well.see(condition.is_well, now):
            return []
        return [self._alert(Event.RECOVERED, "The pipeline is healthy again.")]


class _Steady:
    """Whether something is so, without the moments at which it flickers.

    Args:
        lasts: seconds for which it has to be so.
        ends: seconds for which it has not to be so any more.
    """

    def __init__(self, lasts: float, ends: float, *, is_so: bool = False) -> None:
        self.is_so = is_so
        self._lasts = lasts
        self._ends = ends
        self._turned_at: float | None = None

    def see(self, is_so: bool, now: float) -> bool | None:
        """Whether it has begun (True) or ended (False) with this look; None if neither."""
        if is_so == self.is_so:
            self._turned_at = None
            return None
        if self._turned_at is None:
            self._turned_at = now
        if now - self._turned_at < (self._lasts if is_so else self._ends):
            return None
        self.is_so, self._turned_at = is_so, None
        return is_so


def _slot_lost_in(report: Mapping[str, Any]) -> float | None:
    """Seconds, by the report's forecast, once a good part of the slot's room is used."""
    left: float | None = report["forecast"]["slot_seconds_left"]
    slot = report.get("slot") or {}
    kept, safe = slot.get("retained_bytes"), slot.get("safe_bytes")
    if left is None or kept is None or safe is None or kept < _LEAST_USED * (kept + max(safe, 0)):
        return None
    return left


def _some(texts: Sequence[str]) -> list[str]:
    """A few of them, and how many more there are."""
    more = len(texts) - _MOST_NAMED
    return [*texts[:_MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])]


def _duration(seconds: float) -> str:
    """A time that is left, as people say it."""
    return f"{seconds / 60:.0f} minutes" if seconds < 5_400 else f"{seconds / 3_600:.0f} hours"
