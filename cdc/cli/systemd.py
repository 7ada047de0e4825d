"""What the service manager knows of the pipelines of a process (`Type=notify`, `WatchdogSec=`).

A message is one datagram of lines `NAME=value` to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). systemd kills
the process and starts it again when it hears no `WATCHDOG=1` for too long. The process sends it for as long as each
pipeline's watch looks (`cdc.engine.liveness`). That watch ends a process in which a stage hangs. The watchdog is for
what the watch cannot end: a library that stops all threads, or an end that itself hangs. So `--stall-timeout` alone
says how patient a run is.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.logs import printable
from cdc.model.standing import State

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.5  # seconds
_SAY_EVERY = 10.0  # seconds between messages while nothing changes, if there is no watchdog
_MORE_TIME = 60_000_000  # microseconds, in which the next message comes for certain
_LONGEST_STATUS = 800  # characters: systemd ignores a message of more than 4096 bytes (NOTIFY_BUFFER_MAX)
_ENDS_WITHIN = 1.0  # seconds for the last message


@dataclass(frozen=True, slots=True)
class Manager:
    """Where the service manager listens.

    Attributes:
        address: of its socket; an abstract one begins with a null.
        watchdog: seconds within which it has to hear of this process; None if it does not watch it.
    """

    address: str
    watchdog: float | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Manager | None:
        """The service manager that has started this process; None if no service manager has."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):  # others lead out of a virtual machine, and are for its first process
            return None
        address = "\0" + address[1:] if address[0] == "@" else address
        period = environment.get("WATCHDOG_USEC", "")
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(address, int(period) / 1e6 if is_meant and period.isdecimal() and int(period) else None)

    def send(self, lines: list[str]) -> None:
        """Send a message. A manager that does not listen is no reason to end."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self.address)
            except OSError as error:
                log.debug("the service manager does not listen: %s", error.strerror)


@contextmanager
def reported(pipelines: Callable[[], Mapping[str, Pipeline]]) -> Iterator[None]:
    """Keep the service manager informed, if there is one, for as long as pipelines run.

    Args:
        pipelines: gives those of the process by their names, which stay the same; a pipeline that begins again may be
            another object each time.
    """
    manager = Manager.of(os.environ)
    if manager is None:
        yield
        return
    report, end = Report(manager, pipelines), threading.Event()

    def follow() -> None:
        while not end.wait(report.every):
            try:
                report.look()
            except Exception as error:  # the manager would kill what only was not looked at, and nobody would know why
                log.warning("A message to the service manager has failed: %r", error)

    thread = threading.Thread(target=follow, name="service manager", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_ENDS_WITHIN)
        report.end()


class Report:
    """What the service manager has heard, and what it is to hear next."""

    def __init__(self, manager: Manager, pipelines: Callable[[], Mapping[str, Pipeline]]) -> None:
        self._manager = manager
        self._pipelines = pipelines
        self._is_ready = False
        self._opened: set[str] = set()
        self._was_stopping = False
        self._looks: dict[str, int] = {}
        self._news: tuple[object, ...] = ()
        self._said_at = -_SAY_EVERY
        self._say_every = manager.watchdog / 2 if manager.watchdog is not None else _SAY_EVERY
        self.every = min(_LOOK_EVERY, self._say_every / 2)

    def look(self) -> None:
        """Send what has changed, or a sign of life if one is due."""
        pipelines = self._pipelines()
        views = {name: pipeline.view() for name, pipeline in pipelines.items()}
        ended = {name for name, view in views.items() if view.phase == "stopped"}
        stopping = any(not pipeline.is_running for name, pipeline in pipelines.items() if name not in ended)
        self._opened |= {name for name, pipeline in pipelines.items() if pipeline.is_open}
        becomes_ready = not self._is_ready and bool(self._opened) and self._opened | ended == views.keys()
        news = (stopping, len(self._opened), *(_news(view) for view in views.values()))
        now = time.monotonic()
        if news == self._news and now - self._said_at < self._say_every:
            return
        self._news, self._said_at = news, now
        lines = [f"STATUS={_status(views)}"]
        if becomes_ready:
            self._is_ready = True
            lines.append("READY=1")
        if stopping and not self._was_stopping:
            self._was_stopping = True
            lines.append("STOPPING=1")
        if self._all_move_on(pipelines, ended):
            lines.append("WATCHDOG=1")
            if stopping or not self._is_ready:
                lines.append(f"EXTEND_TIMEOUT_USEC={_MORE_TIME}")
        self._manager.send(lines)

    def end(self) -> None:
        """Send the last word: how the pipelines have ended."""
        views = {name: pipeline.view() for name, pipeline in self._pipelines().items()}
        lines = [f"STATUS={_status(views)}", "STOPPING=1"]
        if not self._is_ready and not any(view.failure for view in views.values()):
            lines.append("READY=1")  # it has done all that it was to do between two looks
        self._manager.send(lines)

    def _all_move_on(self, pipelines: Mapping[str, Pipeline], ended: set[str]) -> bool:
        """Whether the watch of each pipeline that has not ended has looked since the last time."""
        before, self._looks = self._looks, {name: pipeline.looks for name, pipeline in pipelines.items()}
        return all(name in ended or looks != before.get(name, 0) for name, looks in self._looks.items())


def _news(view: PipelineView) -> tuple[object, ...]:
    """What is worth a message at once: not how far it is."""
    return view.phase, view.failure, view.stall and view.stall.stage, _held(view)


def _status(views: Mapping[str, PipelineView]) -> str:
    """One line for `systemctl status`."""
    said = [f"{name}: {_how(view)}" for name, view in views.items()]
    return printable("; ".join(said))[:_LONGEST_STATUS]


def _how(view: PipelineView) -> str:
    words = [view.phase]
    if view.phase == "copying":
        words.append(f"{view.rows_copied} rows copied")
    elif view.phase == "streaming":
        words.append(f"{view.lag_seconds:.1f} s behind, {view.rows_applied} rows applied")
    if view.stall is not None:
        words.append(str(view.stall))
    if held := _held(view):
        words.append(f"held: {' '.join(held)}")
    if view.failure is not None:
        words.append(view.failure)
    return ", ".join(words)


def _held(view: PipelineView) -> list[str]:
    return sorted(str(name) for name, table in list(view.tables.items()) if table.state is State.HELD)
