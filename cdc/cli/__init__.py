"""The command line."""

from __future__ import annotations

import os
import sys

from cdc.cli.app import app
from cdc.errors import EXIT_DONE, CdcError, Stalled
from cdc.logs import printable


def main() -> None:
    """Run a command; a known failure ends with its message, its hint and its exit code, never with a traceback."""
    try:
        # The commands register themselves with the app.
        import cdc.cli.commands  # noqa: F401, PLC0415

        app(standalone_mode=True)
    except CdcError as error:
        print(f"Error: {printable(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"Hint: {printable(error.hint)}", file=sys.stderr)
        if isinstance(error, Stalled):
            sys.stderr.flush()
            os._exit(error.exit_code)  # a thread that hangs would keep the ordinary end waiting
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has had enough
        sys.exit(EXIT_DONE)
