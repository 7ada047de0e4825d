"""The exception tree: what went wrong, whether to try again, and the exit code that tells a supervisor so.

Every condition that is known ends in one of these. The message says what happened and to which object; the hint says
what to do about it. Neither ever holds a password or a row's values (E-03, E-04).
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_RESTARTABLE = 1
EXIT_USAGE = 2
EXIT_OPERATOR = 3


class CdcError(Exception):
    """Base of all expected failures.

    `retry` says that the same work may succeed later without anybody's help, `is_red` that status is unhealthy as soon
    as it is tried again; `exit_code` is what the process ends with if it gives up (see the `EXIT_` constants).
    """

    retry: ClassVar[bool] = False
    is_red: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_RESTARTABLE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CdcError):
    """The command line, a DSN or the configuration is wrong, or names something that does not exist."""

    exit_code = EXIT_USAGE


class Unavailable(CdcError):
    """A server, a slot or a file is not usable just now: a restart, a lost connection, too many connections."""

    retry = True


class SlotBusy(Unavailable):
    """Another process holds the replication slot (A-10)."""


class TableChanged(Unavailable):
    """A table has another shape than a moment ago, so that it has to be looked at again."""


class Stalled(CdcError):
    """A thread hangs and cannot be ended: only the end of the process lets go of what it holds (E-01)."""


class TargetBusy(CdcError):
    """Another process holds the target. Not retried: two writers of one target are a mistake to be seen (D-17)."""


class OperatorNeeded(CdcError):
    """Going on would lose or change data, so nothing but a person may decide what happens next."""

    exit_code = EXIT_OPERATOR


class SlotUnusable(OperatorNeeded):
    """The slot is missing, lost, invalidated, or not the one that the target's checkpoint belongs to."""


class LogLost(OperatorNeeded):
    """The server no longer has the log that comes after the checkpoint."""


class SourceChanged(OperatorNeeded):
    """The server is not the one that was followed: another system, another history, or an earlier state of it."""


class PublicationChanged(OperatorNeeded):
    """The publication was dropped or changed, so that changes may be missing from the stream."""


class SchemaChangeUnsupported(OperatorNeeded):
    """A table was changed in a way that the log does not carry far enough to be followed exactly."""


class TargetDrift(OperatorNeeded):
    """The target does not hold what this pipeline put there."""


class TargetFull(OperatorNeeded):
    """The target has no space left, or its engine no memory."""


class RowTooLarge(OperatorNeeded):
    """A row is larger than what the target takes at once."""


class CheckpointUnreadable(OperatorNeeded):
    """The checkpoint in the target is of a newer version, of another pipeline, or damaged."""


class JournalDamaged(OperatorNeeded):
    """A file of a journal is missing, or does not hold what was written."""


class DecodeError(OperatorNeeded):
    """The source sent something that this program does not understand; nothing of it is skipped."""


class InvariantError(OperatorNeeded):
    """This program found itself in a state that it rules out. It stops before it does harm."""
