"""What private servers of all kinds have in common: a folder, a port, a password, a process, and an end."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

START_WITHIN = 60.0  # seconds
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class PrivateServer(ABC):
    """One server on a free port, gone with everything it holds when this is closed.

    Nobody else on the machine gets in: its users have a password that is made up here, and its files are in a folder of
    the user who started it (O18).

    Args:
        kind: begins the name of the folder.
        password: of its users, if it has the data of another server.
        keep: leave the folder when closed.

    Attributes:
        password: of its users; tests give it to their roles, too.
    """

    _stopped_by = signal.SIGTERM
    _crashed_by = signal.SIGKILL

    def __init__(self, kind: str, password: str = "", *, keep: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"cdc-{kind}-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.password = password or secrets.token_hex(16)
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            with uninterrupted():
                self.create()
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self) -> None:
        """Make what the server starts from."""
        atexit.register(self.close)
        self.make_data()

    @abstractmethod
    def make_data(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def start(self) -> None:
        """Start the server and wait until it answers."""

    def stop(self, number: signal.Signals | None = None) -> None:
        """Stop the server, also under open sessions; with another signal than its usual one as that has it."""
        if self._process is None:
            return
        self._process.send_signal(self._stopped_by if number is None else number)
        self._process.wait()
        self._process = None

    def restart(self, number: signal.Signals | None = None) -> None:
        """Stop and start on the same port."""
        self.stop(number)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        atexit.unregister(self.close)
        self.stop(self._crashed_by)
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.folder / "log"


def cache_folder() -> Path:
    """Where `make servers` unpacks servers: outside of the checkout, so that all checkouts share it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "cdc-servers"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that end this process do so when this is done: inside, they would leave programs that nobody knows of."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which signals do not interrupt
        yield
        return
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def end_of(log: Path) -> str:
    """The last lines of a log; nothing if there is no log."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-5:]) if log.exists() else ""


def written(path: Path, content: str) -> Path:
    """A new file that only its owner may read."""
    path.touch(0o600)
    path.write_text(content)
    return path


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
