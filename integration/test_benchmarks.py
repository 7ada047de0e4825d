"""What benchmarks say beside their figures: who is left out and why, whether the machine was busy, what is compared."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from integration.benchmarks.ingestr import Ingestr
from integration.benchmarks.measure import Took, beside
from integration.benchmarks.neighbours import Clock, verdict, watched
from integration.benchmarks.peers import present


@pytest.fixture
def console() -> Console:
    return Console(width=140, record=True, file=StringIO())


def test_who_is_missing_is_left_out(console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without INGESTR, Java and Maven there is nobody to be measured beside; it is said how to get each of them."""
    monkeypatch.delenv("INGESTR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert present(console, tmp_path) == []
    ingestr, debezium = console.export_text().splitlines()
    assert ingestr.startswith("ingestr is left out: INGESTR does not say where it is. `pip install ingestr`")
    assert debezium.startswith("Debezium is left out: This machine has no java, javac, mvn. Install a JDK and Maven.")


def test_program_that_is_none(console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INGESTR may name something that is not there, or fails: that is said, and the others are measured."""
    broken = _program(tmp_path / "broken", "echo no library >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    for said, answer in ((tmp_path / "nowhere", "which is no program"), (broken, "does not run: no library")):
        monkeypatch.setenv("INGESTR", str(said))
        present(console, tmp_path)
        assert answer in console.export_text()


def test_version_is_in_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures belong to a version: the program is asked for it."""
    monkeypatch.setenv("INGESTR", str(_program(tmp_path / "ingestr", "echo ingestr version v1.1.22")))
    assert Ingestr.found(tmp_path).title == "ingestr v1.1.22"


def test_quiet_and_busy() -> None:
    """What others took and what the host kept make a machine busy; what we took and idle time do not."""
    second = os.sysconf("SC_CLK_TCK")

    def clock(user: float, idle: float, stolen: float, ours: float) -> Clock:
        fields = [user, 0, 0, idle, 0, 0, 0, stolen, user, 0]  # the last two: guests, whom the first counts already
        return Clock.of("cpu  " + " ".join(str(int(each * second)) for each in fields) + "\ncpu0 1 2\n", ours)

    before = clock(100, 50, 5, 30)
    assert verdict(before, clock(180, 70, 5, 109)).startswith("machine quiet: others took 1% of ")
    assert verdict(before, clock(180, 70, 15, 110)).startswith("machine busy: others took 0% of ")
    assert verdict(before, clock(180, 70, 5, 70)).startswith("machine busy: others took 40% of ")
    assert verdict(before, before).startswith("machine quiet: others took 0% of ")


def test_what_we_start_is_ours(console: Console) -> None:
    """The time of processes that were started here counts as ours, those that have ended and those that go on."""
    before = Clock.now()
    with watched(console, "w1"):
        burn = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"]
        with subprocess.Popen(burn, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            going_on = Clock.now()
            process.communicate(b"\n")
    ended = Clock.now()
    assert going_on.ours - before.ours > 0.4
    assert ended.ours >= going_on.ours
    assert ended.passed > before.passed
    heading, said, *_ = console.export_text().splitlines()
    assert heading.startswith("w1; load before it ")
    assert said.startswith("w1: machine ")


def test_peers_are_compared_pair_by_pair(console: Console) -> None:
    """Rows a second, CPU for a million rows, memory, and the median of the pairs' ratios, not the ratio of medians."""
    ours = [Took(1.0, 0.5, 100), Took(2.0, 0.5, 120), Took(1.0, 0.5, 110)]
    theirs = [Took(8.0, 2.0, 300), Took(8.0, 2.0, 310), Took(2.0, 1.0, 290)]
    beside(console, "W1", 500_000, ours, [("theirs", theirs, 10.0)])
    rows = [line.split("│")[1:-1] for line in console.export_text().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["cdc", "500,000", "1.00 (1.00-2.00)", "1.00", "", "120", "", "", ""],
        ["theirs", "62,500", "8.00 (2.00-8.00)", "4.00", "", "310", "4.00", "10.0", "4.00"],
    ]


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
