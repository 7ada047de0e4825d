"""The seam to a source database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cdc.model.position import Checkpoint, Position
from cdc.model.schema import TableName, TableSchema
from cdc.model.segment import Segment
from cdc.model.standing import Standing


class Link(Protocol):
    """What a source may know of the stages after it. It reads; nobody tells it (DESIGN: durability is pulled)."""

    @property
    def durable(self) -> Position | None:
        """Everything up to here is durable in the target; the only thing that feedback may ever carry (A-05)."""

    @property
    def paused(self) -> bool:
        """The hand-off is full: stop reading, keep talking (A-19)."""

    @property
    def idle(self) -> bool:
        """The applier has nothing to do, so that even a small segment should go at once."""

    @property
    def rest(self) -> float:
        """Seconds for which the applier is not idle, though it has nothing to do: small segments gather (O50)."""

    @property
    def goal(self) -> Position | None:
        """Where the run ends, if it ends by itself, or what somebody waits for: the source then says soon that it has
        nothing more up to there."""

    @property
    def stopping(self) -> bool:
        """Somebody asked for an end; `stream` returns at the next commit boundary."""

    def take_refused(self) -> Mapping[int, str]:
        """Tables, by identity, that a stage after the source cannot take, each with the reason; once each. The source
        holds them: it skips their changes from then on, and keeps the reason in its state."""

    def take_again(self) -> set[int]:
        """The tables, by identity, that somebody wants to be copied again whatever they were held for; once each."""

    def alive(self) -> None:
        """Say that something came, or that it is known why nothing does: who stays silent is taken for hung (E-01)."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest that is known of a source's log.

    Attributes:
        position: the log had been written (or read for us) up to here.
        clock: when the source's own clock showed this, in microseconds since the Unix epoch.
    """

    position: Position
    clock: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source is for one pipeline, by its own account.

    Attributes:
        problem: why the pipeline cannot go on from where it is, or soon could not; None if it can.
        lag_bytes: of log that is not applied; None if that is not known from here.
        has_backlog: the log has something for the pipeline that is not applied. Log that is of others is no backlog.
        details: for machines; `kind` says of what: a `slot`, a `log`.
        lines: for people, by their labels.
    """

    kind: str
    problem: str | None
    lag_bytes: int | None
    has_backlog: bool
    details: Mapping[str, object]
    lines: Mapping[str, str]


class Source(Protocol):
    """A database whose log is followed. All of it runs on the reader thread, but for `head`, which anyone may read."""

    @property
    def head(self) -> Head:
        """How far the source itself is; moves while `stream` runs."""

    @property
    def estimates(self) -> Mapping[TableName, int]:
        """The tables that are followed, each with the number of rows that the source believes it has."""

    @property
    def followed(self) -> Mapping[int, TableName]:
        """The tables that are followed or held, by their identities."""

    @property
    def apart(self) -> Mapping[TableName, Standing]:
        """The tables of the selection that are not simply followed: those that are held or left out, and those that
        are about to be copied while the log is followed."""

    @property
    def meant(self) -> Sequence[TableSchema]:
        """The tables of a first start, once it is open and before anything is made for them; none later on."""

    @property
    def is_complete(self) -> bool:
        """Whether every table that is followed has been copied, and all that was found out about tables is handed over:
        a run that is to end by itself does not end before."""

    def open(self, resume: Checkpoint | None) -> None:
        """Claim the slot and prove that it, the server and the checkpoint belong together.

        Raises:
            OperatorNeeded: they do not; nothing has been changed.
            Unavailable: not just now.
        """

    def copy(self, link: Link) -> Iterator[Segment]:
        """Give the rows that were there before the log is followed, of every table that has not been copied yet."""

    def stream(self, link: Link) -> Iterator[Segment]:
        """Give committed transactions from the checkpoint on, without end, or until `link.stopping`."""

    def close(self) -> None:
        """Let go of everything that was opened. May be called twice."""
