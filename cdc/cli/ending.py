"""How a command ends that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from typer.exceptions import Abort, TyperException

from cdc.cli.commands import COMMANDS
from cdc.errors import EXIT_DONE, EXIT_RESTARTABLE, CdcError, Mistakes, Stalled, UsageError
from cdc.files.disk import meaning_of
from cdc.logs import say_error


@contextmanager
def ending(arguments: Sequence[str]) -> Iterator[None]:
    """End the process with the exit code of what is raised inside, after its message and its hint.

    Args:
        arguments: of the command line; they say which help to read where one of them is wrong.
    """
    try:
        yield
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has had enough
        sys.exit(EXIT_DONE)
    except Abort:
        say_error("The question was not answered. Nothing was done.", None, EXIT_RESTARTABLE)
        sys.exit(EXIT_RESTARTABLE)
    except (CdcError, OSError, TyperException) as failure:
        error = _known(failure, arguments)
        if isinstance(error, Mistakes):
            for mistake in error.mistakes:
                say_error(mistake, None, error.exit_code)
        say_error(error.message, error.hint, error.exit_code)
        if isinstance(error, Stalled):
            sys.stderr.flush()
            os._exit(error.exit_code)  # a thread that hangs would keep the ordinary end waiting
        sys.exit(error.exit_code)


def _known(failure: CdcError | OSError | TyperException, arguments: Sequence[str]) -> CdcError:
    if isinstance(failure, CdcError):
        return failure
    if isinstance(failure, OSError):
        return meaning_of(failure)
    command = next((f" {word}" for word in arguments if word in COMMANDS), "")
    message = failure.format_message()
    if not message.endswith((".", "?", ")")):
        message += "."
    return UsageError(message, hint=f"The arguments and options: cdc{command} --help")
