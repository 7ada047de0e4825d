"""What the system says of its disks ends in one of our errors, never in a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from cdc.errors import CdcError, DiskFailed, TargetFull, Unavailable, UsageError
from cdc.files.disk import mapped_errors, meaning_of, no_system_errors


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, TargetFull, 3),
        (errno.EDQUOT, TargetFull, 3),
        (errno.EFBIG, TargetFull, 3),
        (errno.EIO, DiskFailed, 3),
        (errno.EMFILE, DiskFailed, 3),
        (errno.ENOENT, UsageError, 2),
        (errno.EACCES, UsageError, 2),
        (errno.EROFS, UsageError, 2),
        (errno.ECONNRESET, Unavailable, 1),
        (errno.ETIMEDOUT, Unavailable, 1),
    ],
)
def test_what_an_error_means(number: int, kind: type[CdcError], code: int) -> None:
    """O14, O15: with the name of what it is about, and the exit code that a supervisor needs."""
    with pytest.raises(kind) as raised, mapped_errors("x.jsonl"):
        raise OSError(number, os.strerror(number))
    assert type(raised.value) is kind
    assert raised.value.exit_code == code
    assert "x.jsonl" in raised.value.message
    assert raised.value.hint


def test_an_error_that_names_its_file() -> None:
    """O14: where nobody else knows what was to be read or written."""
    with pytest.raises(DiskFailed, match=r"cannot read or write /x/y: Input/output error\."), no_system_errors():
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/x/y")
    assert "what this program uses" in meaning_of(OSError(errno.EIO, "x")).message


def test_output_that_there_is_no_space_for() -> None:
    """O14: what a command prints may be what does not fit."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cdc", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: There is no space left for ")
    assert done.returncode == 3
