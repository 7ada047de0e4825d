"""Asking something of a pipeline that runs in another process, through a socket beside its target.

DuckDB lets nobody else open a file that a pipeline writes, so a process that wants to look at it has to ask that
pipeline. A request and its answers are lines of JSON: progress, as often as there is any, then a result or an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import socketserver
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from cdc.errors import EXIT_OPERATOR, EXIT_USAGE, CdcError, OperatorNeeded, Unavailable, UsageError
from cdc.logs import Thread

log = logging.getLogger(__name__)

Values = dict[str, Any]
Progress = Callable[[Values], None]
Answer = Callable[[str, Values, Progress], Values]


_LONGEST_FOLDER = 77  # bytes: a whole name has 107 at most (unix(7)), of which 30 are the socket's


def socket_path(target: str) -> Path:
    """Where the pipeline of a target listens: in a folder that only this user may enter.

    The name of a socket may not be longer than about a hundred bytes, so that it cannot stand beside the file.

    Raises:
        UsageError: there is no place for such a folder.
    """
    return _folder() / f"{hashlib.sha256(target.encode()).hexdigest()[:24]}.sock"


def _folder() -> Path:
    """The first that is this user's alone. Who has made that in the temporary folder before us takes nothing but that
    place: nobody else writes into a home (O20)."""
    name = f"cdc-{os.getuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = [Path(runtime) / name] if runtime else []
    places += [Path(tempfile.gettempdir()) / name, Path(os.path.expanduser("~")) / ".cdc"]
    for place in places:
        if len(os.fsencode(place)) <= _LONGEST_FOLDER and _is_own(place):
            return place
    raise UsageError(
        f"There is no folder that only this user may enter: not {', '.join(map(str, places))}.",
        hint='Make one: mkdir -m 700 -p "$HOME/run"; export XDG_RUNTIME_DIR="$HOME/run".',
    )


def _is_own(place: Path) -> bool:
    """Make the folder where it is missing; whether it is this user's alone, and no link to another folder."""
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found, above = place.lstat(), place.parent.stat()
    except OSError:
        return False
    is_fixed = above.st_mode & stat.S_ISVTX or not above.st_mode & stat.S_IWOTH  # nobody can put another one there
    is_ours = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and is_ours and bool(is_fixed)


def serve(path: Path, answer: Answer, is_open: Callable[[], bool]) -> None:
    """Answer requests for as long as `is_open`, and the socket is there.

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

        def process_request(self, request: Any, client_address: Any) -> None:
            arguments = request, client_address
            Thread(target=self.process_request_thread, args=arguments, name="answer", daemon=True).start()

        def service_actions(self) -> None:
            if not is_open() or not path.exists():
                # shutdown() waits for this very loop to end.
                Thread(target=self.shutdown, name="end of answers", daemon=True).start()

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


def ask(path: Path, what: str, arguments: Values, progress: Progress, patience: float | None = None) -> Values | None:
    """Have the pipeline that listens there do something; None if no pipeline listens.

    Args:
        patience: seconds without a word after which it counts as one that does not answer; None for no bound.

    Raises:
        CdcError: what it answered, or that it ended before it did.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError), connection.makefile("rb") as lines:
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
    raise Unavailable(
        "The pipeline ended before the command was done.",
        hint="See the messages of the pipeline; then run the command again.",
    )


def _error(said: Values) -> CdcError:
    kinds: dict[int, type[CdcError]] = {EXIT_USAGE: UsageError, EXIT_OPERATOR: OperatorNeeded}
    return kinds.get(said["exit_code"], CdcError)(said["error"], hint=said["hint"])
