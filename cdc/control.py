"""Asking something of a pipeline that runs in another process, through a socket beside its target.

DuckDB lets nobody else open a file that a pipeline writes, so whoever wants to look at it has to ask that pipeline. A
request and its answers are lines of JSON: progress, as often as there is any, then a result or an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from cdc.errors import EXIT_OPERATOR, EXIT_USAGE, CdcError, OperatorNeeded, Unavailable, UsageError

log = logging.getLogger(__name__)

Values = dict[str, Any]
Progress = Callable[[Values], None]
Answer = Callable[[str, Values, Progress], Values]


def socket_path(target: str) -> Path:
    """Where the pipeline of a target listens: in a folder that only this user may enter.

    The name of a socket may not be longer than about a hundred bytes, so that it cannot stand beside the file.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(base) / f"cdc-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise UsageError(f"{folder} is open to other users.", hint="Remove it, or set XDG_RUNTIME_DIR.")
    return folder / f"{hashlib.sha256(target.encode()).hexdigest()[:24]}.sock"


def serve(path: Path, answer: Answer, is_open: Callable[[], bool]) -> None:
    """Answer requests for as long as `is_open`.

    Args:
        answer: is given what to do, with which arguments, and whom to tell of progress.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                line = self.rfile.readline()
                if not line:  # somebody wanted to know whether there is anybody
                    return
                request = orjson.loads(line)
                try:
                    done = answer(request["do"], request["with"], lambda values: self.say({"progress": values}))
                    self.say({"done": done})
                except CdcError as error:
                    self.say({"error": error.message, "hint": error.hint, "exit_code": error.exit_code})

        def say(self, values: Values) -> None:
            self.wfile.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            log.error("An answer to another process failed.", exc_info=True)

        def service_actions(self) -> None:
            if not is_open():
                # shutdown() waits for this very loop to end.
                threading.Thread(target=self.shutdown, daemon=True).start()

    path.unlink(missing_ok=True)  # of a process that was killed: only one at a time has the target open
    with Server(str(path), Handler) as server:
        try:
            server.serve_forever(poll_interval=0.2)
        finally:
            path.unlink(missing_ok=True)


def is_served(path: Path) -> bool:
    """Whether a pipeline listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def ask(path: Path, what: str, arguments: Values, progress: Progress) -> Values | None:
    """Have the pipeline that listens there do something; None if none does.

    Raises:
        CdcError: what it answered, or that it ended before it did.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        with suppress(BrokenPipeError, ConnectionResetError), connection.makefile("rb") as lines:
            connection.sendall(orjson.dumps({"do": what, "with": arguments}, option=orjson.OPT_APPEND_NEWLINE))
            for line in lines:
                said = orjson.loads(line)
                if "progress" in said:
                    progress(said["progress"])
                elif "done" in said:
                    done: Values = said["done"]
                    return done
                else:
                    raise _error(said)
    raise Unavailable("The pipeline ended before it was done.", hint="See its own messages; then ask again.")


def _error(said: Values) -> CdcError:
    kinds: dict[int, type[CdcError]] = {EXIT_USAGE: UsageError, EXIT_OPERATOR: OperatorNeeded}
    return kinds.get(said["exit_code"], CdcError)(said["error"], hint=said["hint"])
