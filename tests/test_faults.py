"""Fault points: names are right wherever they stand, and each kind does what it says."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdc import faults
from cdc.errors import InvariantError, UsageError

SOURCES = Path(faults.__file__).parent


def test_every_name_is_passed_somewhere_and_every_passed_name_is_listed() -> None:
    passed: dict[str, set[str]] = {}
    for file in SOURCES.rglob("*.py"):
        text = file.read_text()
        names = re.findall(r"faults\.point\(\"([a-z_.]+)\"\)", text)
        assert len(names) == text.count("faults.point("), f"{file.name} passes a point whose name is no literal"
        assert len(names) == len(set(names)), f"{file.name} passes a point in two places"
        for name in names:
            passed.setdefault(name, set()).add(str(file.relative_to(SOURCES)))
    assert set(passed) == set(faults.POINTS)
    for name, files in passed.items():
        # One name in one place, or in the same place of connectors of one kind, or of ways to keep a table.
        kinds = {Path(file).parts[0] for file in files}
        assert len(files) == 1 or kinds <= {"sources"} or kinds <= {"targets", "tables"}, name


@pytest.mark.parametrize(
    "setting",
    ["target.before_comit", "target.before_commit=stop", "target.before_commit:0", "x=kill", "target.begun=delay:x"],
)
def test_a_typing_error_in_the_environment_is_reported(setting: str) -> None:
    """E-12: a test that arms nothing would prove nothing."""
    with pytest.raises(UsageError, match=re.escape(setting)):
        faults.parse(setting)


def test_the_command_line_ends_with_2_for_such_an_error() -> None:
    """E-12."""
    command = [sys.executable, "-m", "cdc", "run", "postgresql://h/d", "x.duckdb"]
    done = subprocess.run(command, env={"CDC_FAULT": "nowhere"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


def arm(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr(faults, "_armed", faults.parse(setting))


def test_a_typing_error_in_a_call_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "target.begun")
    with pytest.raises(InvariantError, match="nowhere"):
        faults.point("nowhere")


def test_a_fault_happens_once_at_the_passing_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "target.begun:3=raise,target.opened=fail")
    for _ in range(2):
        faults.point("target.begun")
    with pytest.raises(faults.FaultPassing) as raised:
        faults.point("target.begun")
    assert raised.value.retry
    faults.point("target.begun")
    with pytest.raises(faults.FaultLasting) as lasting:
        faults.point("target.opened")
    assert not lasting.value.retry


@pytest.mark.parametrize(("kind", "number"), [("nospace", errno.ENOSPC), ("ioerror", errno.EIO)])
def test_the_errors_of_a_disk(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    """O14: they are the system's own."""
    arm(monkeypatch, f"target.begun={kind}")
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        faults.point("target.begun")
    assert raised.value.errno == number


def test_a_disk_that_is_full_from_there_on(tmp_path: Path) -> None:
    """O14: the point itself is passed, and what writes next fails in its own words."""
    program = (
        "import duckdb, sys\n"
        "from cdc import faults\n"
        "there = duckdb.connect(sys.argv[1])\n"
        "there.execute('CREATE TABLE t (i int)')\n"
        "faults.point('target.begun')\n"
        "try: there.execute('INSERT INTO t VALUES (1)')\n"
        "except duckdb.Error as error: print(error, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.duckdb")]
    environment = {"CDC_FAULT": "target.begun=full"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    assert "Could not write file" in done.stderr
    assert "File too large" in done.stderr


def test_a_delay_is_as_long_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "target.begun=delay:0.2")
    began = time.monotonic()
    faults.point("target.begun")
    assert time.monotonic() - began >= 0.2
