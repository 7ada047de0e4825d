"""What a running pipeline looks like: bars and a live line on a terminal, log lines elsewhere, and the status file."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cdc.logs import printable
from cdc.pipeline import Pipeline, PipelineView

log = logging.getLogger("cdc")

_LOOK_EVERY = 0.1  # seconds
_FILE_EVERY = 1.0
_LINE_EVERY = 10.0


class Rate:
    """Rows per second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def __call__(self, rows: int) -> float:
        now = time.monotonic()
        self._seen = [entry for entry in self._seen if now - entry[0] < 5.0] + [(now, rows)]
        (since, before), (_, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - since) if now > since else 0.0


def watch(pipeline: Pipeline, console: Console, status: Path | None) -> None:
    """Show a pipeline until it has stopped, and keep its status file."""
    screen = _Terminal(console) if console.is_terminal else _Lines()
    written = 0.0
    with screen:
        while True:
            view = pipeline.view()
            screen.show(view)
            now = time.monotonic()
            if status is not None and (now - written >= _FILE_EVERY or view.phase == "stopped"):
                written = now
                write_status(view, status)
            if view.phase == "stopped":
                return
            time.sleep(_LOOK_EVERY)


def keep_status(pipeline: Pipeline, path: Path) -> None:
    """Keep the status file of a pipeline that nobody watches, for as long as it runs."""
    while pipeline.is_running:
        write_status(pipeline.view(), path)
        pipeline.rest(_FILE_EVERY)
    write_status(pipeline.view(), path)


def write_status(view: PipelineView, path: Path) -> None:
    """Put the view into a file, in one step, so that a reader never sees half of it."""
    content = asdict(replace(view, tables={})) | {
        "pid": os.getpid(),
        "written_at": time.time(),
        "healthy": view.stall is None and not view.is_red,
        "durable": view.durable.text if view.durable else None,
        "source_position": view.source_position.text if view.source_position else None,
        "tables": {str(table): asdict(entry) for table, entry in list(view.tables.items())},
    }
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(orjson.dumps(content))
        new.replace(path)
    except OSError as error:
        log.debug("the status file cannot be written: %s", error.strerror)


class _Lines:
    """Log lines: one at each new phase, one now and then."""

    def __init__(self) -> None:
        self._phase = ""
        self._said = 0.0
        self._rate = Rate()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, view: PipelineView) -> None:
        now = time.monotonic()
        rate = self._rate(view.rows_copied + view.rows_applied)
        # While something fails again and again, the phases take turns and say nothing new (E-09).
        is_told = view.phase == self._phase or (view.failure is not None and self._phase != "")
        if is_told and now - self._said < _LINE_EVERY:
            return
        self._phase, self._said = view.phase, now
        log.info("%s", summary(view, rate))


class _Terminal:
    """Bars while tables are copied, one line while the log is followed."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:>10,.0f} rows"),
            TimeRemainingColumn(),
        )
        self._bars: dict[object, int] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._rate = Rate()

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, view: PipelineView) -> None:
        line = Text(summary(view, self._rate(view.rows_copied + view.rows_applied)))
        body: RenderableType = line
        if view.phase == "copying":
            for table, entry in list(view.tables.items()):
                bar = self._bars.get(table)
                if bar is None:
                    bar = self._bars[table] = self._progress.add_task(escape(printable(str(table))))
                total = max(entry.rows_estimated, entry.rows_copied) or None
                self._progress.update(self._progress.task_ids[bar], completed=entry.rows_copied, total=total)
            body = Group(self._progress, line)
        self._live.update(body)


def summary(view: PipelineView, rate: float) -> str:
    """A view in one line of `name=value`, the same for people and for whoever greps."""
    words = [f"phase={view.phase}"]
    if view.phase == "copying" or view.rows_copied:
        words.append(f"copied={view.rows_copied}")
    words += [
        f"rows={view.rows_applied}",
        f"transactions={view.transactions_applied}",
        f"rate={rate:.0f}/s",
        f"lag={view.lag_bytes}B/{view.lag_seconds:.1f}s",
        f"durable={view.durable or '-'}",
    ]
    if view.stall:
        words.append(f"stalled={view.stall.stage}/{view.stall.seconds:.0f}s")
    if view.failure:
        words.append(f"failure={view.failure!r}")
    return " ".join(words)
