"""What a terminal and a log show of a pipeline that runs."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
from rich.console import Console

from cdc.cli import view as views
from cdc.engine.views import PipelineView
from cdc.logs import configure

log = logging.getLogger("cdc.test")


def screen(written: str) -> list[str]:
    """What a terminal shows in the end, line by line."""
    lines, row = [""], 0
    for code, text in re.findall(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)|([^\x1b\r\n]+)", written):
        if code == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif code == "\x1b[1A":
            row -= 1
        elif code == "\x1b[2K":
            lines[row] = ""
        elif text:
            lines[row] += text
    return [line.rstrip() for line in lines if line.strip()]


def test_log_lines_while_the_live_line_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """O37: one console for both: each line stands for itself, and the live line is there once, at the end."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure(verbose=False)
    terminal = views._Terminal(Console(stderr=True, force_terminal=True, width=200))
    with terminal:
        for number in range(5):
            terminal.show(PipelineView(phase="streaming", rows_applied=number))
            terminal._live.refresh()
            log.warning("line %d", number)
    shown = screen(out.getvalue())
    lines = [re.sub(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in shown[:5]]
    assert lines == [f"WARNING line {number}" for number in range(5)]
    assert [line.partition(" ")[0] for line in shown[5:]] == ["phase=streaming"], shown


class Hour:
    """The log lines of a pipeline, by a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.rows = 0
        self.lines: list[str] = []
        self._view = views._Lines()
        monkeypatch.setattr("cdc.cli.view.time.monotonic", lambda: self.now)
        monkeypatch.setattr(views.log, "info", lambda _, line: self.lines.append(line))

    def said(self, seconds: int, rows_a_second: int) -> int:
        """How many lines there are within so many seconds."""
        self.lines.clear()
        for _ in range(seconds):
            self.now += 1
            self.rows += rows_a_second
            self._view.show(PipelineView(phase="streaming", rows_applied=self.rows, transactions_applied=int(self.now)))
        return len(self.lines)


def test_an_idle_pipeline_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """O40: a line a minute, and ten seconds apart while rows come."""
    hour = Hour(monkeypatch)
    assert hour.said(600, 0) == 10
    assert hour.said(600, 1) in (60, 61)
    assert hour.said(600, 0) in (10, 11)


class Ending:
    """A pipeline that ends while what it looks like is being written."""

    def __init__(self) -> None:
        self.seen = PipelineView(phase="streaming", has_target=True)
        self.written: list[str] = []
        self.is_running = True

    def view(self) -> PipelineView:
        return self.seen

    def rest(self, seconds: float) -> None:
        self.is_running = False  # it is asked to end, and has not ended yet

    def write(self, view: PipelineView) -> None:
        self.written.append(view.phase)
        if len(self.written) == (1 if self.is_running else 2):
            self.seen.phase = "stopped"


@pytest.mark.parametrize("is_watched", [True, False])
def test_the_last_that_is_written_is_the_end(is_watched: bool) -> None:
    """O14: whenever a pipeline ends, its status file says so: otherwise it seems to have been killed."""
    pipeline = Ending()
    if is_watched:
        views.watch(pipeline, Console(file=io.StringIO()), pipeline)  # type: ignore[arg-type]
    else:
        pipeline.is_running = False
        views.keep_status(pipeline, pipeline)  # type: ignore[arg-type]
    assert pipeline.written[-1] == "stopped"
    assert len(pipeline.written) == (2 if is_watched else 3)
