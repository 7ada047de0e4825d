"""What a running pipeline looks like: bars and a live line on a terminal, log lines elsewhere, and the status file."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.files.durable import replacing
from cdc.logs import printable
from cdc.model.standing import State
from cdc.whereabouts import own_socket, status_file

log = logging.getLogger("cdc")

_LOOK_EVERY = 0.1  # seconds
_FILE_EVERY = 1.0
_LINE_EVERY = 10.0
_IDLE_LINE_EVERY = 60.0


class Rate:
    """Rows per second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def __call__(self, rows: int) -> float:
        now = time.monotonic()
        self._seen = [entry for entry in self._seen if now - entry[0] < 5.0] + [(now, rows)]
        (since, before), (_, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - since) if now > since else 0.0


@dataclass(frozen=True, slots=True)
class StatusFile:
    """Where a running pipeline says how it is.

    Attributes:
        pipeline: its name.
        socket: where it listens, which others may look for elsewhere: that depends on their environment (O8).
    """

    path: Path
    pipeline: str
    socket: Path

    @classmethod
    def of(cls, target: str, pipeline: str) -> StatusFile:
        """That of a target's pipeline."""
        return cls(status_file(target, pipeline), pipeline, own_socket(target, pipeline))

    def write(self, view: PipelineView) -> None:
        """Put the view into the file, in one step, so that a reader never sees half of it."""
        content = asdict(replace(view, tables={})) | {
            "pipeline": self.pipeline,
            "socket": str(self.socket),
            "pid": os.getpid(),
            "written_at": time.time(),
            "healthy": view.stall is None and not (view.is_red or _held(view)),
            "durable": view.durable.text if view.durable else None,
            "source_position": view.source_position.text if view.source_position else None,
            "tables": {str(table): asdict(entry) for table, entry in list(view.tables.items())},
        }
        try:
            with replacing(self.path, 0o600) as file:
                file.write(orjson.dumps(content))
        except OSError as error:
            log.debug("the status file cannot be written: %s", error.strerror)


def watch(pipeline: Pipeline, console: Console | None, status: StatusFile | None) -> None:
    """Show a pipeline until it has stopped, and keep its status file.

    Args:
        console: None for one among several, all of which have lines.
    """
    screen = _Terminal(console) if console is not None and console.is_terminal else _Lines()
    written = 0.0
    with screen:
        while True:
            view = pipeline.view()
            is_over = view.phase == "stopped"  # which it may become at any moment: what is written last says so
            screen.show(view)
            now = time.monotonic()
            is_due = now - written >= _FILE_EVERY or is_over
            # A pipeline that has not got its target leaves the file to the one that has it (O28).
            if status is not None and view.has_target and is_due:
                written = now
                status.write(view)
            if is_over:
                return
            time.sleep(_LOOK_EVERY)


def keep_status(pipeline: Pipeline, status: StatusFile) -> None:
    """Keep the status file of a pipeline that nobody watches, for as long as it runs."""
    while True:
        view = pipeline.view()
        is_over = view.phase == "stopped"
        _keep(view, status)
        if is_over:
            return
        if pipeline.is_running:
            pipeline.rest(_FILE_EVERY)
        else:  # it is asked to end, and does not rest any more
            time.sleep(_LOOK_EVERY)


def _keep(view: PipelineView, status: StatusFile) -> None:
    if view.has_target:
        status.write(view)


def _held(view: PipelineView) -> list[str]:
    return sorted(str(name) for name, table in list(view.tables.items()) if table.state is State.HELD)


class _Lines:
    """Log lines: one at each new phase, one now and then; while nothing changes, seldom."""

    def __init__(self) -> None:
        self._phase = ""
        self._news: tuple[object, ...] = ()
        self._said = 0.0
        self._rate = Rate()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, view: PipelineView) -> None:
        now = time.monotonic()
        rate = self._rate(view.rows_copied + view.rows_applied)
        # While something fails again and again, the phases take turns and say nothing new (E-09).
        is_known = view.phase == self._phase or (view.failure is not None and self._phase != "")
        news = (view.rows_copied, view.rows_applied, view.stall, view.failure, _held(view))  # not of heartbeats
        if is_known and now - self._said < (_LINE_EVERY if news != self._news else _IDLE_LINE_EVERY):
            return
        self._phase, self._news, self._said = view.phase, news, now
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
    """A view in one line of `name=value`, the same for people and for programs."""
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
    if held := _held(view):
        words.append(f"held={','.join(held)}")
    if view.failure:
        words.append(f"failure={view.failure!r}")
    return " ".join(words)
