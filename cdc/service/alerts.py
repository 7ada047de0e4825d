"""Alerts: which changes of a pipeline's condition a person has to hear of, each once.

A condition is looked at every second. An alert is a transition, not a state: while a table stays held, nothing is
repeated. What lasts for a moment only, such as a lost connection that is back at once, is no transition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

SLOT_WITHIN = 86_400.0  # seconds; how early the loss of a slot is foretold where nothing else is asked for
_CALM = 1.5  # the forecast has to be so many times better before the loss can be foretold again
_MOST_NAMED = 10  # tables or problems that a message names


class Event(StrEnum):
    """What an alert is about."""

    UNHEALTHY = "unhealthy"
    RECOVERED = "recovered"
    HELD = "held"
    DIFFERS = "differs"
    SLOT = "slot"
    STOPPED = "stopped"


# Seconds for which something has to be so before it is an alert, and not to be so before it has ended. Nothing that
# ends within them is sent. What a verification found is a fact, which does not come and go.
_LASTS = {Event.UNHEALTHY: 15.0, Event.HELD: 15.0, Event.DIFFERS: 0.0, Event.SLOT: 60.0}
_ENDS = {Event.UNHEALTHY: 30.0, Event.HELD: 30.0, Event.DIFFERS: 0.0, Event.SLOT: 60.0}


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to a person.

    Attributes:
        at: seconds since the Unix epoch.
        message: what happened and what to do, in sentences.
        tables: those that it concerns.
    """

    event: Event
    pipeline: str
    message: str
    at: float
    tables: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Condition:
    """What alerts are made of.

    Attributes:
        problems: why the pipeline is unhealthy, but for tables that are held; empty if nothing else is wrong.
        held: per table that is held, why.
        different: per table that differed when it was verified last, how many rows did.
        slot_lost_in: seconds until the source deletes log that is still needed, if that is to be expected.
    """

    problems: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    different: Mapping[str, int] = field(default_factory=dict)
    slot_lost_in: float | None = None


class Alerts:
    """Makes alerts of what one pipeline's condition is from one look to the next.

    Args:
        slot_within: seconds; how early the loss of a slot is foretold.
    """

    def __init__(self, pipeline: str, slot_within: float = SLOT_WITHIN) -> None:
        self._pipeline = pipeline
        self._slot_within = slot_within
        self._known: dict[Event, dict[str, _Steady]] = {}

    def look(self, condition: Condition, now: float) -> list[Alert]:
        """The alerts that are due.

        Args:
            now: seconds since the Unix epoch; never less than at the last look.
        """
        unhealthy, recovered = self._changes(Event.UNHEALTHY, [""] if condition.problems else [], now)
        held, _ = self._changes(Event.HELD, condition.held, now)
        different, _ = self._changes(Event.DIFFERS, condition.different, now)
        lost, _ = self._changes(Event.SLOT, [""] if self._is_near(condition.slot_lost_in) else [], now)
        alerts = []
        if unhealthy:
            alerts.append(self._alert(Event.UNHEALTHY, " ".join(_some(condition.problems)), now))
        if recovered:
            alerts.append(self._alert(Event.RECOVERED, "The pipeline is healthy again.", now))
        if held:
            whys = [f"{table} is held: {condition.held[table]}" for table in held]
            alerts.append(self._alert(Event.HELD, " ".join(_some(whys)), now, held))
        if different:
            rows = [f"{table} ({condition.different[table]:,} rows)" for table in different]
            message = (
                f"These tables differ from the source: {', '.join(_some(rows))}. `cdc repair` reads the rows again."
            )
            alerts.append(self._alert(Event.DIFFERS, message, now, different))
        if lost:
            message = (
                f"The source deletes log that is still needed in {_duration(condition.slot_lost_in or 0.0)} if the "
                "pipeline does not catch up. Let it run, or give the slot more room (max_slot_wal_keep_size)."
            )
            alerts.append(self._alert(Event.SLOT, message, now))
        return alerts

    def stopped(self, message: str, now: float) -> Alert:
        """The alert of a run that has ended because only a person may decide what happens next."""
        return self._alert(Event.STOPPED, message, now)

    def _alert(self, event: Event, message: str, now: float, tables: Iterable[str] = ()) -> Alert:
        return Alert(event, self._pipeline, message, now, list(tables))

    def _is_near(self, lost_in: float | None) -> bool:
        if lost_in is None:
            return False
        slot = self._known.get(Event.SLOT, {}).get("")
        is_foretold = slot is not None and slot.is_so
        return lost_in < self._slot_within * (_CALM if is_foretold else 1)

    def _changes(self, event: Event, present: Collection[str], now: float) -> tuple[list[str], list[str]]:
        """Of the things that may be so, those that have begun and those that have ended."""
        begun: list[str] = []
        ended: list[str] = []
        known = self._known.setdefault(event, {})
        for name in sorted({*present, *known}):
            steady = known.setdefault(name, _Steady(_LASTS[event], _ENDS[event]))
            turn = steady.see(name in present, now)
            if turn is not None:
                (begun if turn else ended).append(name)
            elif not (steady.is_so or name in present):
                del known[name]
        return begun, ended


class _Steady:
    """Whether something is so, without the moments at which it flickers.

    Args:
        lasts: seconds for which it has to be so.
        ends: seconds for which it has not to be so any more.
    """

    def __init__(self, lasts: float, ends: float) -> None:
        self.is_so = False
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


def _some(texts: Sequence[str]) -> list[str]:
    """A few of them, and how many more there are."""
    more = len(texts) - _MOST_NAMED
    return [*texts[:_MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])]


def _duration(seconds: float) -> str:
    """A time that is left, as people say it."""
    if seconds < 5_400:
        return f"{max(seconds, 0) / 60:.0f} minutes"
    return f"{seconds / 3_600:.0f} hours"
