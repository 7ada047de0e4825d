"""What the system's errors mean: of a target's files, and of whatever else this program uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ELOOP, ENAMETOOLONG, ENOSPC, EROFS

from cdc.errors import CdcError, DiskFailed, TargetFull, Unavailable, UsageError

_NO_SPACE = (ENOSPC, EDQUOT, EFBIG)  # of the disk, of a user's share of it, of what a process may write
_NAMES = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_OF_NAMES = (ENAMETOOLONG, ELOOP, EROFS)
_ROLLED_BACK = "nothing was lost, what was not durable is rolled back."


def meaning(error: OSError, what: str) -> CdcError:
    """What an error of the system means for a pipeline.

    Args:
        what: was to be read or written.
    """
    said = error.strerror or type(error).__name__
    if error.errno in _NO_SPACE:
        return TargetFull(
            f"There is no space left for {what}.", hint=f"Free some space and start again: {_ROLLED_BACK}"
        )
    if isinstance(error, _NAMES) or error.errno in _OF_NAMES:
        return UsageError(
            f"The system cannot open {what}: {said}.", hint="Check the name, the folder and its permissions."
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return Unavailable(f"A connection was lost: {said} ({what}).", hint="It is tried again.")
    return DiskFailed(
        f"The system cannot read or write {what}: {said}.",
        hint=f"Look at its disk and at the system's log, and start again: {_ROLLED_BACK}",
    )


def meaning_of(error: OSError) -> CdcError:
    """The same where the error alone can say what was to be read or written."""
    return meaning(error, str(error.filename or "what this program uses"))


@contextmanager
def mapped_errors(what: object) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise meaning(error, str(what)) from error


@contextmanager
def no_system_errors() -> Iterator[None]:
    """The same for whatever has turned none into ours: an error is never a traceback (E-11)."""
    try:
        yield
    except BrokenPipeError:  # of a reader of our output, who has had enough (H11)
        raise
    except OSError as error:
        raise meaning_of(error) from error
