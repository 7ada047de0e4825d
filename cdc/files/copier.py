"""A process that copies a file which another process writes: `python -m cdc.files.copier FILE COPY`.

The two talk in lines. It says `ready`, and is answered `take` at a moment in which FILE is whole and stays so; it says
`taken`, with how many bytes it has written and how many there are, and is answered `keep` while that is still so. Only
then the copy gets its name. If the other process is gone at either place, nothing happens: what was copied may be half
of one state and half of another.

It is a process of its own since closing a file ends all locks that a process has on it (fcntl(2)): DuckDB's lock keeps
others from writing FILE, and must stay.

Beside COPY lies `.COPY.spare`: the copy before the last one, into which only those blocks go that have changed. Readers
may still have that file open. The system gives a process a write lease only on a file that nobody else has open, for
reading or writing (fcntl(2), F_SETLEASE). Without that lease a new file takes its place.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import stat
import sys
from contextlib import suppress
from errno import EDQUOT, ELOOP, ENOSPC
from pathlib import Path

from cdc import faults

_BLOCK = 256 << 10  # bytes, which is DuckDB's own size of a block
_TURN_EVERY = 0.05  # seconds
_FICLONE = 0x40049409  # linux/fs.h: the file's blocks become those of another file, until one of the two is written
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)


def spare_of(copy: Path) -> Path:
    """The file that becomes the next copy."""
    return copy.with_name(f".{copy.name}.spare")


class Copier:
    """One copy of a file.

    Attributes:
        written: bytes that were different.
    """

    def __init__(self, file: Path, copy: Path) -> None:
        self._copy = copy
        self._spare = spare_of(copy)
        self._from = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._to, self._is_new = self._open_spare()
        self.written = 0

    @property
    def size(self) -> int:
        return os.fstat(self._from).st_size

    def prepare(self) -> None:
        """Copy what a new file lacks while the other process still writes: less is left for the time it waits."""
        if self._is_new:
            self.take()

    def take(self) -> None:
        """Make the copy equal."""
        self.written = 0
        if _is_cloned(self._from, self._to):
            return
        size = self.size
        for offset in range(0, size, _BLOCK):
            block = os.pread(self._from, min(_BLOCK, size - offset), offset)
            if os.pread(self._to, len(block), offset) != block:
                _write_at(self._to, block, offset)
                self.written += len(block)
                faults.point("publish.block")
        os.ftruncate(self._to, size)

    def keep(self) -> None:
        """Make it durable, and give it its name; the one before becomes the spare file."""
        os.fchmod(self._to, stat.S_IMODE(self._model().st_mode))
        os.fsync(self._to)
        if not (self._copy.exists() and _are_exchanged(self._spare, self._copy)):
            self._spare.replace(self._copy)
        folder = os.open(self._copy.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)

    def give_up(self) -> None:
        """Free the space of a copy that has no place on the disk."""
        self._spare.unlink(missing_ok=True)

    def _model(self) -> os.stat_result:
        """Those who may read the copy may read the next one."""
        return self._copy.stat() if self._copy.exists() else os.fstat(self._from)

    def _open_spare(self) -> tuple[int, bool]:
        """The spare file, and whether it is a new one."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            found = os.open(self._spare, flags)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != ELOOP:
                raise
        else:
            if _is_nobodys(found):
                return found, False
            os.close(found)
        self._spare.unlink(missing_ok=True)
        return os.open(self._spare, flags | os.O_CREAT | os.O_EXCL, 0o666), True


def _is_nobodys(file: int) -> bool:
    """Whether nobody else has a file open, nor another name for it. The lease ends with this process."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:  # somebody has it open; or there are no leases in this file system
        return False
    return True


def _is_cloned(source: int, copy: int) -> bool:
    """Have a file share its blocks with another one, where the file system does that."""
    try:
        fcntl.ioctl(copy, _FICLONE, source)
    except OSError:
        return False
    os.ftruncate(copy, os.fstat(source).st_size)
    return True


def _write_at(file: int, block: bytes, offset: int) -> None:
    while block:
        written = os.pwrite(file, block, offset)
        block, offset = block[written:], offset + written


def _are_exchanged(one: Path, other: Path) -> bool:
    """Have two files each get the other's name in one step, where the system can do that."""
    library = ctypes.CDLL(None)
    try:
        exchange = library.renameat2
    except AttributeError:
        return False
    return bool(exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _is_answered(word: str) -> bool:
    return sys.stdin.readline() == f"{word}\n"


def _has_turn(folder: int) -> bool:
    """Wait until no other process copies to a folder; whether that was before the other end was gone."""
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if select.select([sys.stdin], [], [], _TURN_EVERY)[0]:  # it says nothing before it hears that this is ready
                return False
        else:
            return True


def main(file: str, copy: str) -> None:
    """Copy, as the module says."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)  # the other process decides; SIGIO comes if somebody opens a spare file
    path = Path(copy)
    # One at a time: a process whose other end was killed may not have noticed yet.
    copier = None
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not _has_turn(folder):
            return
        copier = Copier(Path(file), path)
        copier.prepare()
        _say("ready")
        if not _is_answered("take"):
            return
        copier.take()
        _say(f"taken {copier.written} {copier.size}")
        if not _is_answered("keep"):
            return
        copier.keep()
        _say("kept")
    except OSError as error:
        if copier is not None and error.errno in (ENOSPC, EDQUOT):
            with suppress(OSError):
                copier.give_up()
        _say(f"failed {error.errno} {os.strerror(error.errno or 0)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
