"""The command line."""

from __future__ import annotations

import sys

from cdc.cli.app import app
from cdc.errors import EXIT_DONE, CdcError


def main() -> None:
    """Run a command; a known failure ends with its message, its hint and its exit code, never with a traceback."""
    # The commands register themselves with the app.
    import cdc.cli.commands  # noqa: F401, PLC0415

    try:
        app(standalone_mode=True)
    except CdcError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"Hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has had enough
        sys.exit(EXIT_DONE)
