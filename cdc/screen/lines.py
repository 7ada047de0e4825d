"""What is logged of a pipeline that runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cdc.engine.views import PipelineView
from cdc.logs import Facts
from cdc.model.standing import State
from cdc.screen.rates import Rates

log = logging.getLogger("cdc")

_EVERY = 10.0  # seconds
_IDLE_EVERY = 60.0


def held(view: PipelineView) -> list[str]:
    """The names of the tables that are held."""
    return sorted(str(name) for name, table in list(view.tables.items()) if table.state is State.HELD)


def facts(view: PipelineView, rate: float) -> Facts:
    """A view as one log line."""
    is_copied = view.phase == "copying" or view.rows_copied
    words = [f"phase={view.phase}"]
    words += [f"copied={view.rows_copied}"] if is_copied else []
    words += [
        f"rows={view.rows_applied}",
        f"transactions={view.transactions_applied}",
        f"rate={rate:.0f}/s",
        f"lag={view.lag_bytes}B/{view.lag_seconds:.1f}s",
        f"durable={view.durable or '-'}",
    ]
    words += [f"stalled={view.stall.stage}/{view.stall.seconds:.0f}s"] if view.stall else []
    not_followed = held(view)
    words += [f"held={','.join(not_followed)}"] if not_followed else []
    words += [f"failure={view.failure!r}"] if view.failure else []
    values = {
        "phase": view.phase,
        "rows_copied": view.rows_copied,
        "rows": view.rows_applied,
        "transactions": view.transactions_applied,
        "rows_per_second": round(rate, 1),
        "lag_bytes": view.lag_bytes,
        "lag_seconds": round(view.lag_seconds, 3),
        "durable": view.durable.text if view.durable else None,
        "stalled": str(view.stall) if view.stall else None,
        "held": not_followed,
        "failure": view.failure,
    }
    return Facts("progress", values, " ".join(words))


@dataclass(slots=True)
class _Said:
    """What was logged of one pipeline, and when."""

    phase: str = ""
    news: tuple[object, ...] = ()
    at: float = 0.0
    rates: Rates = field(default_factory=Rates)


class Lines:
    """One line at each new phase, one now and then; while nothing changes, seldom (O40).

    Args:
        say: takes each line.
        every: seconds between two lines while rows come.
    """

    def __init__(self, say: Callable[[Facts], None] = log.info, every: float = _EVERY) -> None:
        self._say = say
        self._every = every
        self._said: dict[str, _Said] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, name: str, view: PipelineView) -> None:
        """Log the view of a pipeline if it is time to."""
        now = time.monotonic()
        said = self._said.setdefault(name, _Said())
        said.rates.see({"rows": view.rows_copied + view.rows_applied})
        # While something fails again and again, the phases take turns and say nothing new (E-09).
        is_known = view.phase == said.phase or (view.failure is not None and said.phase != "")
        news = (view.rows_copied, view.rows_applied, view.stall, view.failure, held(view))  # not of heartbeats
        if is_known and now - said.at < (self._every if news != said.news else _IDLE_EVERY):
            return
        said.phase, said.news, said.at = view.phase, news, now
        self._say(facts(view, said.rates.of("rows")))

    def draw(self) -> None:
        """There is nothing to draw."""
