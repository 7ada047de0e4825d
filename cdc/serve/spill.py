"""Where queries that do not fit into memory put what is left of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

_PREFIX = "cdc-serve-"
_NEW = 60.0  # seconds


class Spill:
    """A folder of this process alone, with one inside of it for each edition.

    A process that is killed leaves its own behind, with files of some gigabytes. The next one removes it: the lock on a
    folder ends with the process that has it (flock(2)).
    """

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):  # of another user, or removed by another process
                _remove_if_left(left)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._numbers = count()

    def another(self) -> Path:
        """A folder that no other edition has; DuckDB makes it."""
        return self._folder / str(next(self._numbers))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(held)
        is_new = time.time() - found.st_mtime < _NEW  # its process may not have locked it yet
        if found.st_uid == os.geteuid() and not is_new:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    finally:
        os.close(held)
