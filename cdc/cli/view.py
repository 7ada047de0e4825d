"""Watching pipelines that run: on a screen, and in the status file of each."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.files.durable import replacing
from cdc.logs import of_pipeline, settings
from cdc.screen.lines import Lines
from cdc.screen.shown import Nothing, screen
from cdc.whereabouts import own_socket, status_file

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("cdc")

_LOOK_EVERY = 0.1  # seconds
_FILE_EVERY = 1.0
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")


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
            "durable": view.durable.text if view.durable else None,
            "source_position": view.source_position.text if view.source_position else None,
            "tables": {str(table): asdict(entry) for table, entry in list(view.tables.items())},
        }
        try:
            with replacing(self.path, 0o600) as file:
                file.write(orjson.dumps(content))
        except OSError as error:
            log.debug("the status file cannot be written: %s", error.strerror)


class Watched(NamedTuple):
    """A pipeline that is watched.

    Attributes:
        name: of the pipeline.
        target: what it writes to, as its user calls that.
        status: its file, if it has one.
    """

    name: str
    pipeline: Pipeline
    target: str = ""
    status: StatusFile | None = None


def watch(watched: Sequence[Watched], console: Console | None) -> None:
    """Show pipelines until all of them have stopped, and keep their status files. Says at the end how to go on.

    Args:
        console: None if it is no terminal.
    """
    written = dict.fromkeys(range(len(watched)), 0.0)
    phases: dict[int, str] = {}
    caught_up: set[int] = set()
    left = set(written)
    with screen(console) as shown:
        while left:
            for number in sorted(left):
                name, pipeline, _, status = watched[number]
                with of_pipeline(name):
                    view = pipeline.view()
                    is_over = view.phase == "stopped"  # which it may become at any moment: what is written last says so
                    shown.show(name, view)
                    is_news = phases.get(number) != view.phase
                    phases[number] = view.phase
                    if number not in caught_up and _is_caught_up(view):
                        is_news = True
                        caught_up.add(number)
                        log.info("Caught up with the source, at %s.", view.durable)
                now = time.monotonic()
                is_due = now - written[number] >= _FILE_EVERY or is_news
                # A pipeline that has not got its target leaves the file to the one that has it (O28).
                if status is not None and view.has_target and is_due:
                    written[number] = now
                    status.write(view)
                if is_over:
                    left.remove(number)
            shown.draw()
            if left:
                time.sleep(_LOOK_EVERY)
    for each in watched:
        _say_last(each, None if isinstance(shown, Lines | Nothing) else console)


def _is_caught_up(view: PipelineView) -> bool:
    return view.phase == "streaming" and view.durable is not None and not view.lag_bytes


def _say_last(watched: Watched, drawn_on: Console | None) -> None:
    """Say what happened and how to go on, unless that is what the error says that has ended it."""
    word = last_word(watched)
    if word is None or settings().is_quiet:
        return
    if drawn_on is not None:
        drawn_on.print(word, highlight=False, markup=False, soft_wrap=True)
        return
    with of_pipeline(watched.name):
        log.info("%s", word)


def last_word(watched: Watched) -> str | None:
    """What happened, and how to go on; None after a failure, which says so itself."""
    view = watched.pipeline.view()
    if view.failure is not None:
        return None
    if view.durable is None:
        return "Stopped before anything was applied; run the same command to begin again."
    if watched.pipeline.was_stopped:
        return f"Stopped at {view.durable}; run the same command to go on."
    return f"Caught up, and ended at {view.durable}. {_how_to_read(watched.target, view)}".rstrip()


def _how_to_read(target: str, view: PipelineView) -> str:
    """How to look at what a file of DuckDB holds now. Who has a server knows how to ask it."""
    if not (target.startswith("duckdb:") or target.endswith((".duckdb", ".ddb", ".db"))):
        return ""
    largest = max(view.tables, key=lambda name: view.tables[name].rows_copied, default=None)
    name = str(largest) if largest is not None and _PLAIN_NAME.fullmatch(str(largest)) else None
    statement = f"SELECT * FROM {name} LIMIT 10" if name is not None else "SELECT * FROM _cdc.freshness"
    return f"To look at it: cdc query {shlex.quote(target)} {shlex.quote(statement)}"


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
