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
    `concerns` is the identity of the one table that the failure is about, if it is about one: all others can go on.
    """

    retry: ClassVar[bool] = False
    is_red: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_RESTARTABLE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.concerns: int | None = None


class UsageError(CdcError):
    """The command line, a DSN or the configuration is wrong, or names something that does not exist."""

    exit_code = EXIT_USAGE


class Mistakes(UsageError):
    """A file of settings has mistakes. The message counts them; each is a line of its own, with its place."""

    def __init__(self, file: str, mistakes: list[str]) -> None:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{file} has {count}.")
        self.mistakes = mistakes


class NotKnown(UsageError):
    """The rows of a table at a moment are not known: changes were skipped, or may have been missed."""


class NoTables(UsageError):
    """The source has no table to follow, or no table that a pattern matches. `--wait-for-tables` waits for tables."""


class OtherPipeline(UsageError):
    """The target belongs to another pipeline, which may run."""


class Unavailable(CdcError):
    """A server, a slot or a file is not usable just now: a restart, a lost connection, too many connections."""

    retry = True


class SlotBusy(Unavailable):
    """Another process holds the replication slot (A-10)."""


class NotReached(CdcError):
    """A target does not have the position that a command has waited for."""


class SourceBehind(Unavailable):
    """The server is a replica that does not yet have everything that the target has (B-04)."""

    is_red = True


class HalfWritten(Unavailable):
    """A target's open transaction has a part of a step, or can no longer be used: the target has to be opened again."""


class TableChanged(Unavailable):
    """A table has another shape than a moment ago: cdc has to look at it again."""


class TableSetApart(Unavailable):
    """There is a problem with one table. The log is read again from the checkpoint, without the changes of this table
    or, if its rows are suspect, with more leniency."""


class TablesHeld(CdcError):
    """A run has caught up with everything except some tables that are held."""


class Stalled(CdcError):
    """A thread hangs and cannot be ended. Only the end of the process releases what it holds (E-01)."""


class TargetBusy(CdcError):
    """Another process holds the target. Not retried: a person has to see that there are two writers (D-17)."""


class OperatorNeeded(CdcError):
    """Going on would lose or change data, so a person has to decide what happens next."""

    exit_code = EXIT_OPERATOR


class SourceUnfit(OperatorNeeded):
    """The settings of the source, or the rights of its role, are not enough to follow it. Nothing was made there."""


class SlotUnusable(OperatorNeeded):
    """The slot is missing, lost, invalidated, or not the one that the target's checkpoint belongs to."""


class LogLost(OperatorNeeded):
    """The server no longer has the log that comes after the checkpoint."""


class SourceChanged(OperatorNeeded):
    """The server is not the one that was followed: another system, another history, or an earlier state of it."""


class PublicationChanged(OperatorNeeded):
    """The publication was dropped or changed. Changes may be missing from the stream."""


class SchemaChangeUnsupported(OperatorNeeded):
    """A table was changed in a way that the log does not describe well enough to follow it exactly."""


class TargetDrift(OperatorNeeded):
    """The target does not hold what this pipeline wrote there."""


class RowDrift(TargetDrift):
    """The source changed a row that the target does not have. Comparing the table with its source corrects that."""


class TargetGone(OperatorNeeded):
    """The target was removed or replaced after it was opened."""


class TargetDamaged(OperatorNeeded):
    """The target's file does not hold what was written to it."""


class TargetFull(OperatorNeeded):
    """The target has no space left, or its engine no memory."""


class DiskFailed(OperatorNeeded):
    """The system cannot read or write a file, and not for lack of space."""


class RowTooLarge(OperatorNeeded):
    """A row is larger than the target accepts."""


class ValueRefused(OperatorNeeded):
    """A row has a value that no type of the target can hold."""


class CheckpointUnreadable(OperatorNeeded):
    """The checkpoint in the target is of a newer version, of another pipeline, or damaged."""


class JournalDamaged(OperatorNeeded):
    """A file of a journal is missing, or does not hold what was written."""


class DecodeError(OperatorNeeded):
    """The source sent something that this program does not understand, and does not skip."""


class InvariantError(OperatorNeeded):
    """This program is in a state that must never occur. It stops before it does harm."""
