"""The command line."""

from __future__ import annotations

import os
import sys

from cdc.cli.app import app
from cdc.cli.commands import load, ordered
from cdc.errors import EXIT_DONE, CdcError, Mistakes, Stalled
from cdc.files.disk import meaning_of
from cdc.logs import printable


def main() -> None:
    """Run a command; a known failure ends with its message, its hint and its exit code, never with a traceback."""
    try:
        arguments = ordered(sys.argv[1:])
        load(arguments)
        app(arguments, standalone_mode=True)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has had enough
        sys.exit(EXIT_DONE)
    except (CdcError, OSError) as failure:
        error = failure if isinstance(failure, CdcError) else meaning_of(failure)
        print(f"Error: {printable(error.message)}", file=sys.stderr)
        if isinstance(error, Mistakes):
            for mistake in error.mistakes:
                print(printable(mistake), file=sys.stderr)
        if error.hint:
            print(f"Hint: {printable(error.hint)}", file=sys.stderr)
        if isinstance(error, Stalled):
            sys.stderr.flush()
            os._exit(error.exit_code)  # a thread that hangs would keep the ordinary end waiting
        sys.exit(error.exit_code)
