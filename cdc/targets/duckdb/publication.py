"""A copy of a target's file for those who read it while it is written: renewed again and again, always whole."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc import faults
from cdc.errors import OperatorNeeded, UsageError
from cdc.files.copier import spare_of
from cdc.files.disk import meaning
from cdc.tables import control
from cdc.targets.duckdb.backup import refuse_place, settle, wal_of
from cdc.targets.duckdb.engine import DuckDbEngine

_SIGN_EVERY = 0.5  # seconds


class DuckDbCopying:
    """One copy that another process makes, as a `cdc.target.Copying`."""

    def __init__(self, process: subprocess.Popen[bytes], to: Path) -> None:
        self._process = process
        self._to = to
        self.written = self.size = 0
        self.pause = 0.0

    def take(self, alive: Callable[[], None]) -> None:
        began = time.monotonic()
        faults.point("publish.settled")
        self._tell("take")
        written, size = self.expect("taken", alive)
        faults.point("publish.taken")
        self._tell("keep")
        self.written, self.size, self.pause = int(written), int(size), time.monotonic() - began

    def keep(self) -> None:
        faults.point("publish.released")
        self.expect("kept", lambda: None)
        faults.point("publish.kept")

    def expect(self, word: str, alive: Callable[[], None]) -> list[str]:
        """What the process says after a word.

        Raises:
            CdcError: it has failed, or ended.
        """
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], _SIGN_EVERY)[0]:
            alive()
        said, *rest = self._process.stdout.readline().decode().split() or [""]
        if said == word:
            return rest
        if said == "failed":
            number, *text = rest
            raise meaning(OSError(int(number), " ".join(text)), str(self._to))
        raise OperatorNeeded(
            f"The process that copies the target to {self._to} has ended.",
            hint="It was killed, perhaps because there was too little memory. The earlier copy stays as it is.",
        )

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it has said says why


class DuckDbPublication:
    """The copy of a file under another name, as a `cdc.target.Publication`.

    Args:
        file: what is copied.
        to: the copy.
    """

    def __init__(self, file: Path, to: Path) -> None:
        self._path = file
        self.file = to
        self._known: tuple[int, int] | None = None  # of the file, when it was copied last
        self._kept: tuple[int, int] | None = None  # the copy that was made last, as the file system knows it

    def refuse_place(self) -> None:
        refuse_place(self._path, self.file)
        if self.file.is_symlink():
            raise UsageError(
                f"{self.file} is a link, and would be replaced by a file.",
                hint="Name the file that it leads to, or another one.",
            )
        for path in (self.file, spare_of(self.file)):
            if self._path.exists() and path.exists() and os.path.samefile(self._path, path):
                raise UsageError(f"{path} is the target itself.", hint="Name another file.")
        if not os.access(self.file.absolute().parent, os.W_OK):
            raise UsageError(f"The folder {self.file.parent} cannot be written to.", hint="Name a file elsewhere.")

    @property
    def has_news(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return (
            wal_of(self._path).exists() or not self.file.exists() or self._known != (found.st_mtime_ns, found.st_size)
        )

    def note(self) -> None:
        found = self._path.stat()
        self._known = found.st_mtime_ns, found.st_size

    @property
    def is_replaced(self) -> bool:
        return self.file.exists() and self._kept != _inode(self.file)

    def note_kept(self) -> None:
        self._kept = _inode(self.file)

    @contextmanager
    def begin(self) -> Iterator[DuckDbCopying]:
        refuse_place(self._path, self.file)
        command = [sys.executable, "-m", "cdc.files.copier", str(self._path.absolute()), str(self.file.absolute())]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        ) as process:
            copying = DuckDbCopying(process, self.file)
            try:
                copying.expect("ready", lambda: None)
                faults.point("publish.ready")
                yield copying
            finally:
                assert process.stdin is not None
                process.stdin.close()  # which ends it, wherever it is

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        with control.opened(DuckDbEngine(self._path, 64 << 20)) as engine:
            settle(engine.connection, self._path)
            yield


def _inode(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino
