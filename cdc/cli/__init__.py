"""The command line."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout

from cdc.cli.commands import VERSION, apart
from cdc.errors import EXIT_RESTARTABLE

_COMPLETE = "_CDC_COMPLETE"  # a shell asks what could be written


class _WithoutPandas:
    """Where pandas is installed, pyarrow loads it with the first array that goes to NumPy or comes from a list
    (`pandas-shim.pxi`). This program has nothing of pandas."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    """Run a command. A known failure ends with its message, its hint and its exit code, never with a traceback."""
    sys.meta_path.insert(0, _WithoutPandas)
    of_all, rest = apart(sys.argv[1:])
    if VERSION in of_all:  # what the others load takes longer than this answer
        from cdc import version

        try:
            print(f"cdc {version.VERSION}", flush=True)
        except OSError as failure:  # there is no space for it, or nobody reads it
            from cdc.cli.ending import ending

            with ending(rest):
                raise failure
        return
    if _COMPLETE in os.environ:
        _complete()
        return
    from cdc.cli.app import app
    from cdc.cli.ending import ending

    with ending(rest):
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="cdc", standalone_mode=False))


def _complete() -> None:
    """Answer a shell. A person is typing there: whatever is wrong is no concern of theirs now."""
    said, on_line = io.StringIO(), ""
    try:
        from cdc.cli.app import app
        from cdc.cli.completion import rejoin_words
        from cdc.cli.texts import offer_plainly

        offer_plainly()
        if "COMP_WORDS" in os.environ:
            on_line = rejoin_words(os.environ)
        with redirect_stdout(said):
            app(prog_name="cdc")
    except Exception:
        sys.exit(EXIT_RESTARTABLE)
    finally:
        for line in said.getvalue().splitlines():
            print(line.removeprefix(on_line))
