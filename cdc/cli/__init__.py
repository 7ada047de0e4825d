"""The command line."""

from __future__ import annotations

import os
import sys

from cdc.cli.commands import VERSION, apart

_COMPLETE = "_CDC_COMPLETE"  # a shell asks what could be written


def main() -> None:
    """Run a command. A known failure ends with its message, its hint and its exit code, never with a traceback."""
    of_all, rest = apart(sys.argv[1:])
    if VERSION in of_all:  # what the others load takes longer than this answer
        from cdc import version

        print(f"cdc {version.VERSION}")
        return
    if "COMP_WORDS" in os.environ and _COMPLETE in os.environ:
        from cdc.cli.completion import rejoin_words

        rejoin_words(os.environ)
    from cdc.cli.app import app
    from cdc.cli.ending import ending

    with ending(rest):
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
