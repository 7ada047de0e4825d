"""What a terminal and a log show of a pipeline that runs."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pyte
import pytest
from rich.console import Console

from cdc.cli import view as views
from cdc.cli.view import Watched
from cdc.engine.liveness import Stall
from cdc.engine.views import PipelineView, TableView
from cdc.logs import Facts, Form, Level, Settings, configure
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.screen import rates as clocks
from cdc.screen.lines import Lines
from cdc.screen.picture import counts, picture
from cdc.screen.rates import Rates, duration, size
from cdc.screen.shown import Nothing, screen
from cdc.screen.terminal import Terminal

log = logging.getLogger("cdc.test")


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """What one test asks of the log is no other one's."""
    configure(Settings())
    yield
    configure(Settings())


def shown(written: str, columns: int = 100, lines: int = 30) -> list[str]:
    """The lines that a terminal shows in the end, which are not empty."""
    screen = pyte.Screen(columns, lines)
    pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


def drawn(view: PipelineView, columns: int, lines: int, **console: object) -> str:
    """The picture of a pipeline, half a second after it began."""
    out = io.StringIO()
    kept = Rates()
    kept.see(dict.fromkeys(counts(view), 0))
    clocks.time.sleep(0.001)
    kept.see(counts(view))
    terminal = Console(file=out, force_terminal=True, width=columns, height=lines, **console)  # type: ignore[arg-type]
    terminal.print(picture("shop", view, kept, columns, lines))
    return out.getvalue()


def following(tables: int = 3) -> PipelineView:
    view = PipelineView(phase="streaming", durable=Position(100, "0/16B3748"), lag_seconds=0.2)
    for number in range(tables):
        view.tables[TableName("public", f"t{number}")] = TableView(
            inserted=number, updated=2 * number, deleted=1, state=State.FOLLOWING
        )
    return view


def copying(tables: int = 3) -> PipelineView:
    view = PipelineView(phase="copying")
    for number in range(tables):
        view.tables[TableName("public", f"t{number}")] = TableView(rows_estimated=1000, rows_copied=100 * number)
    view.rows_copied = sum(table.rows_copied for table in view.tables.values())
    return view


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("lines", [2, 3, 5, 24])
@pytest.mark.parametrize("make", [following, copying])
@pytest.mark.parametrize("tables", [0, 1, 4, 1000])
def test_a_picture_fits_into_the_window(columns: int, lines: int, make: object, tables: int) -> None:
    """Whatever there is to say, and however much of it."""
    view: PipelineView = make(tables)  # type: ignore[operator]
    for number, table in enumerate(view.tables.values()):
        if number % 3 == 1:
            table.state, table.reason = State.HELD, "a value has no place there " * 20
    view.failure = "The server is gone. " * 40
    view.stall = Stall("reader", "reading the log", 0.0, 12.0)
    text = re.sub(r"\x1b\[[0-9;]*m", "", drawn(view, columns, lines))
    assert len(text.splitlines()) <= max(lines, 2)
    assert all(len(line) <= columns for line in text.splitlines())
    assert "shop" in text.splitlines()[0]


def test_the_busiest_tables_are_shown_first() -> None:
    """And those for which there is no room are counted."""
    lines = shown(drawn(following(10), 80, 6), 80)
    assert lines[0].startswith("shop  following, caught up  lag 0 B, 0.2 s  at 0/16B3748")
    assert [line.split()[0] for line in lines[2:5]] == ["public.t9", "public.t8", "public.t7"]
    assert lines[2].split()[1:5] == ["-", "9", "18", "1"]
    assert lines[5] == "and 7 more"


def test_a_copy_has_bars_and_what_is_left() -> None:
    lines = shown(drawn(copying(), 80, 10), 80)
    assert "copying  300 rows" in lines[0]
    assert "left" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["public.t1", "public.t2", "public.t0"]
    assert "━" in lines[2]


def test_tables_that_are_not_followed_have_their_reason() -> None:
    """In words, and in a colour; without colours where nobody wants any (NO_COLOR)."""
    view = following()
    held, suspect = list(view.tables.values())[:2]
    held.state, held.reason = State.HELD, "a value has no place in DECIMAL(38,2)"
    suspect.state, suspect.reason = State.SUSPECT, "its shape has changed"
    written = drawn(view, 80, 20, color_system="standard")
    assert "\x1b[1;31mheld" in written
    assert "\x1b[1;33msuspect" in written
    assert shown(written, 80)[-2:] == [
        "held public.t0: a value has no place in DECIMAL(38,2)",
        "suspect public.t1: its shape has changed",
    ]
    plain = drawn(view, 80, 20, no_color=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", plain)
    assert "held public.t0: a value" in re.sub(r"\x1b\[[0-9;]*m", "", plain)


HOSTILE = ["\x1b[2J\x1b[31m", "[red]x[/red]", "[/]", "a\nb", "\u202egnp", "表" * 50, "x" * 200, "\x9b1A", "\x07"]


@pytest.mark.parametrize("make", [following, copying])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_a_database_draw_nothing(name: str, make: object) -> None:
    """Neither escape sequences nor markup of ours, and no line is longer for them."""
    view: PipelineView = make()  # type: ignore[operator]
    view.tables[TableName(name, name)] = TableView(inserted=999, rows_copied=5, state=State.SUSPECT, reason=name)
    view.failure = name
    written = drawn(view, 60, 16)
    assert set(re.findall(r"\x1b\[([^a-zA-Z]*[a-zA-Z])", written)) <= set(re.findall(r"\x1b\[([0-9;]*m)", written))
    assert not set(written) & {"\x9b", "\x07", "\u202e"}
    assert len(written.splitlines()) <= 16
    if "[" in name:
        text = " ".join(shown(written, 60))
        assert "[red]x" in text or "[/]" in text or "\\x1b" in text


def test_several_pipelines_share_the_window() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, force_terminal=True, width=80, height=13))
    with terminal:
        for number in range(4):
            terminal.show(f"pipeline{number}", following(20))
    lines = shown(out.getvalue(), 80, 13)
    assert [line.split()[0] for line in lines if "following" in line] == [f"pipeline{number}" for number in range(4)]
    assert len(lines) <= 12


def test_log_lines_while_the_picture_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """O37: one console for both: each line stands for itself above the picture, which is there once, at the end."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    terminal = Terminal(Console(stderr=True, force_terminal=True, width=100, height=30))
    with terminal:
        for number in range(5):
            terminal.show("shop", following(3))
            terminal._draw()
            log.warning("line %d", number)
    found = shown(out.getvalue())
    lines = [re.sub(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in found[:5]]
    assert lines == [f"WARNING line {number}" for number in range(5)]
    assert [line.split()[0] for line in found[5:]] == ["shop", "table", "public.t2", "public.t1", "public.t0"]


def test_another_size_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next picture is one of the new size."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=40)
    terminal = Terminal(console)
    with terminal:
        terminal.show("shop", following(30))
        terminal._draw()
        out.seek(0)
        out.truncate()
        console.size = (60, 8)  # type: ignore[assignment]
        terminal._draw()
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "").splitlines()
        assert len([line for line in lines if line]) <= 8
        assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("settings", "is_terminal", "kind"),
    [
        (Settings(), True, Terminal),
        (Settings(), False, Lines),
        (Settings(form=Form.JSON), True, Lines),
        (Settings(level=Level.WARNING), True, Terminal),
        (Settings(is_quiet=True), True, Nothing),
        (Settings(is_quiet=True), False, Nothing),
    ],
)
def test_who_sees_a_picture(settings: Settings, is_terminal: bool, kind: type) -> None:
    configure(settings)
    assert type(screen(Console(file=io.StringIO(), force_terminal=is_terminal))) is kind


def test_a_terminal_that_can_do_nothing_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert type(screen(Console(file=io.StringIO(), force_terminal=True))) is Lines


class Hour:
    """The log lines of a pipeline, by a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.rows = 0
        self.lines: list[Facts] = []
        self._view = Lines(self.lines.append)
        monkeypatch.setattr("cdc.screen.lines.time.monotonic", lambda: self.now)

    def said(self, seconds: int, rows_a_second: int) -> int:
        """How many lines there are within so many seconds."""
        self.lines.clear()
        for _ in range(seconds):
            self.now += 1
            self.rows += rows_a_second
            view = PipelineView(phase="streaming", rows_applied=self.rows, transactions_applied=int(self.now))
            self._view.show("shop", view)
        return len(self.lines)


def test_an_idle_pipeline_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """O40: a line a minute, and ten seconds apart while rows come."""
    hour = Hour(monkeypatch)
    assert hour.said(600, 0) == 10
    assert hour.said(600, 1) in (60, 61)
    assert str(hour.lines[-1]).startswith("phase=streaming rows=59")
    assert hour.lines[-1].values["rows_per_second"] == 1.0
    assert hour.said(600, 0) in (10, 11)


def test_a_line_of_json_has_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure(Settings(form=Form.JSON))
    view = following()
    view.lag_bytes, view.stall = 7, Stall("reader", "reading the log", 0.0, 12.0)
    next(iter(view.tables.values())).state = State.HELD
    Lines().show("shop", view)
    line = json.loads(out.getvalue())
    assert (line["level"], line["logger"], line["message"], line["phase"]) == ("info", "cdc", "progress", "streaming")
    assert (line["lag_bytes"], line["lag_seconds"], line["durable"]) == (7, 0.2, "0/16B3748")
    assert line["held"] == ["public.t0"]
    assert line["stalled"] == "The reader has not moved on for 12 s (reading the log)."


class Ending:
    """A pipeline that ends while what it looks like is being written."""

    def __init__(self) -> None:
        self.seen = PipelineView(phase="streaming", has_target=True)
        self.written: list[str] = []
        self.is_running = True
        self.was_stopped = True

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
        watched = Watched("shop", pipeline, "duckdb:x", pipeline)  # type: ignore[arg-type]
        views.watch([watched], Console(file=io.StringIO()))
    else:
        pipeline.is_running = False
        views.keep_status(pipeline, pipeline)  # type: ignore[arg-type]
    assert pipeline.written[-1] == "stopped"
    assert len(pipeline.written) == (2 if is_watched else 3)


@pytest.mark.parametrize(
    ("target", "table", "was_stopped", "word"),
    [
        ("duckdb:shop.duckdb", "t", True, "Stopped at 0/16B3748; run the same command to go on."),
        (
            "duckdb:shop.duckdb",
            "t",
            False,
            "Caught up, and ended at 0/16B3748. "
            "To look at it: cdc query duckdb:shop.duckdb 'SELECT * FROM public.t LIMIT 10'",
        ),
        (
            "my shop.db",
            "t'; rm -rf /",
            False,
            "Caught up, and ended at 0/16B3748. To look at it: cdc query 'my shop.db' 'SELECT * FROM _cdc.freshness'",
        ),
        ("postgresql://u:secret@h/d", "t", False, "Caught up, and ended at 0/16B3748."),
    ],
)
def test_the_last_word(target: str, table: str, was_stopped: bool, word: str) -> None:
    pipeline = Ending()
    pipeline.was_stopped = was_stopped
    pipeline.seen = PipelineView(phase="stopped", durable=Position(1, "0/16B3748"))
    pipeline.seen.tables[TableName("public", table)] = TableView(rows_copied=1)
    watched = Watched("shop", pipeline, target)  # type: ignore[arg-type]
    assert views.last_word(watched) == word
    pipeline.seen.failure = "The server is gone."
    assert views.last_word(watched) is None


def test_what_is_left_and_how_much() -> None:
    assert [duration(seconds) for seconds in (0.4, 42, 100, 3600, 7500, 7 * 86400)] == [
        "0 s",
        "42 s",
        "2 min",
        "60 min",
        "2 h 5 min",
        "7 days",
    ]
    assert [size(count) for count in (0, 812, 3_200_000, 5 << 40)] == ["0 B", "812 B", "3.1 MB", "5.0 TB"]
