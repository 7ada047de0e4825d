"""The process that runs pipelines: what it has asked for, what it listens to, how it ends."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cdc.cli.systemd import reported
from cdc.cli.view import StatusFile, Watched, keep_status, watch
from cdc.connectors import JOURNAL, kind_of
from cdc.engine.liveness import Stall
from cdc.engine.pipeline import Pipeline
from cdc.errors import EXIT_RESTARTABLE, OperatorNeeded
from cdc.options import OnOperatorNeeded, Options, Serving
from cdc.runs import open_fanout, open_pipeline, serve_jobs
from cdc.serve.access import PASSWORD
from cdc.service.address import Address
from cdc.service.notify import Notifier, NotifyOptions
from cdc.service.observed import ObservedPipeline
from cdc.service.service import Service
from cdc.whereabouts import own_socket

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.1  # seconds
_FORCE_A_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE")  # variables by which rich takes something else for one


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody has asked for.

    Attributes:
        target: what the source's changes go to; a journal (`journal:DIR`) where that feeds targets.
        feeds: the targets that are fed from the journal; None without one.
        max_lag: seconds that it may be behind and count as ready.
    """

    source: str
    target: str
    feeds: tuple[str, ...] | None
    options: Options
    max_lag: float = 300.0

    @property
    def targets(self) -> tuple[str, ...]:
        """All that it writes to."""
        return self.target, *(self.feeds or ())

    def with_queries(self) -> Wanted:
        """The same, with a process that answers questions to its published copy, if there is one."""
        options = self.options
        if options.publish is None or options.serving is not None:
            return self
        return replace(self, options=replace(options, serving=Serving()))

    @property
    def query_socket(self) -> Path | None:
        """Of the process that answers questions to its published copy."""
        if self.options.serving is None or self.feeds is not None:
            return None
        from cdc.serve.child import socket_of

        return socket_of(self.target, self.options.name)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The options of a process, whatever pipelines it runs.

    Attributes:
        listen: where it answers about them, if anywhere.
        notify: who gets alerts.
        on_operator_needed: whether it ends with 3 at once, or stays alive and not ready until it is stopped.
    """

    listen: Address | None = None
    notify: NotifyOptions = NotifyOptions()  # noqa: RUF009 - it is frozen
    on_operator_needed: OnOperatorNeeded = OnOperatorNeeded.EXIT

    @property
    def answers_queries(self) -> bool:
        """Whether its port passes on questions to published copies. It has no login and no TLS, so nobody beyond this
        machine may ask there, and nobody at all where readers need a password."""
        return self.listen is not None and self.listen.is_loopback and PASSWORD not in os.environ


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin.

    Attributes:
        watched: the pipeline into the target, or into the journal that feeds targets.
        run: runs until the end, while its argument is called (`Pipeline.run_beside`); raises CdcError.
        stop: asks it to end at the next commit boundary.
    """

    watched: Watched
    run: Callable[[Callable[[threading.Thread], None]], None]
    stop: Callable[[], None]


def prepare(wanted: Wanted, observed: ObservedPipeline) -> Prepared:
    """Check both ends for form, and make what runs. Nothing is opened yet.

    Args:
        observed: looks at each pipeline that is made.

    Raises:
        UsageError: a DSN or an option is wrong.
    """
    source, target, options = wanted.source, wanted.target, wanted.options
    status = StatusFile.of(target, options.name)
    if wanted.feeds is None:
        pipeline = open_pipeline(source, target, options, end_process)
        _attend(pipeline, wanted, target, observed)
        return Prepared(Watched(options.name, pipeline, target, status), pipeline.run_beside, pipeline.stop)
    for feed in wanted.feeds:
        own_socket(feed, options.name)  # so that it is refused before anything is made
    fanout = open_fanout(source, target, wanted.feeds, options, end_process, partial(_attend_feed, wanted, observed))
    _attend(fanout.writer, wanted, target, observed)
    return Prepared(Watched(options.name, fanout.writer, target, status), fanout.run, fanout.stop)


def refuse_wrong(wanted: Wanted) -> None:
    """Raise UsageError if a DSN or an option is wrong. Nothing is opened."""
    if wanted.feeds is None:
        open_pipeline(wanted.source, wanted.target, wanted.options)
    else:
        open_fanout(wanted.source, wanted.target, wanted.feeds, wanted.options)


def _attend(pipeline: Pipeline, wanted: Wanted, target: str, observed: ObservedPipeline) -> None:
    """Every pipeline that this process makes comes by here before it runs, also the one into a journal and those that
    are fed from it."""
    observed.attach(pipeline)
    is_of_journal = kind_of(wanted.source) == JOURNAL or (wanted.feeds is not None and target == wanted.target)
    if not is_of_journal:  # in which there is nothing to compare
        serve_jobs(pipeline, wanted.source, target, wanted.options)


def _attend_feed(wanted: Wanted, observed: ObservedPipeline, pipeline: Pipeline, target: str) -> None:
    pipeline.companions.append(lambda: keep_status(pipeline, StatusFile.of(target, wanted.options.name)))
    _attend(pipeline, wanted, target, observed.feed(target, wanted.target))


def carry_out(wanted: Sequence[Wanted], process: ProcessOptions) -> None:
    """Run one or several until their end.

    Raises:
        CdcError: what one cannot go on with; if there are several, the worst of what has ended them.
    """
    notifier = Notifier(process.notify.receivers(), process.notify.slot_within)
    ending = Ending()

    def say_stopped(name: str, error: Exception) -> None:
        if isinstance(error, OperatorNeeded):
            notifier.stopped(name, " ".join(filter(None, (error.message, error.hint))))

    if process.answers_queries:
        wanted = [each.with_queries() for each in wanted]
    with Service(process.listen, notifier) as service:
        observed = [service.observe(each.source, each.target, each.options.name, each.max_lag) for each in wanted]
        if process.answers_queries:
            for each, seen in zip(wanted, observed, strict=True):
                seen.query_socket = each.query_socket
        try:
            if len(wanted) == 1:
                _run_alone(wanted[0], observed[0], ending, say_stopped)
            else:
                from cdc.cli.together import Together

                together = Together(list(zip(wanted, observed, strict=True)), say_stopped)
                ending.stops(together.stop)
                with reported(together.pipelines):
                    together.run()
        except OperatorNeeded as error:
            if process.on_operator_needed is OnOperatorNeeded.WAIT:
                # A container would be started again and again, and nobody would read what is wrong.
                log.error("%s %s The process waits for SIGTERM, and is not ready.", error.message, error.hint or "")
                ending.wait()
            raise


def _run_alone(
    wanted: Wanted, observed: ObservedPipeline, ending: Ending, say_stopped: Callable[[str, Exception], None]
) -> None:
    run = prepare(wanted, observed)
    ending.stops(run.stop)
    try:
        with reported(lambda: {wanted.options.name: run.watched.pipeline}):
            run.run(lambda _: watch([run.watched], _screen()))
    except OperatorNeeded as error:
        say_stopped(wanted.options.name, error)
        raise


def _screen() -> Console | None:
    """Standard error, if it may be a terminal. A service has none, and loads nothing that draws."""
    if not sys.stderr.isatty() and not any(os.environ.get(name) for name in _FORCE_A_TERMINAL):
        return None
    from cdc.cli.consoles import messages

    return messages


class Ending:
    """SIGINT, SIGTERM and SIGHUP, which ask for the end."""

    def __init__(self) -> None:
        self._is_asked = False

    def stops(self, stop: Callable[[], None]) -> None:
        """Have them end what runs at the next commit boundary (D-18)."""
        self._call(stop)

    def wait(self) -> None:
        """Wait until somebody has asked, be it before."""
        if not self._is_asked:
            self._call(lambda: None)
        while not self._is_asked:
            time.sleep(_LOOK_EVERY)

    def _call(self, act: Callable[[], None]) -> None:
        def asked(_number: int, _frame: object) -> None:
            self._is_asked = True
            act()

        signal.signal(signal.SIGINT, asked)
        signal.signal(signal.SIGTERM, asked)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what `nohup` asks for
            signal.signal(signal.SIGHUP, asked)


def end_process(stall: Stall) -> None:
    """A thread that hangs cannot be ended, and what it holds would keep an ordinary end waiting (E-01)."""
    goes_on = "The process ends; it goes on from the checkpoint when it is started again. It hangs here:"
    log.error("%s %s", stall, goes_on)
    faulthandler.dump_traceback(file=sys.stderr)
    if (console := _screen()) is not None and console.is_terminal:
        console.show_cursor()
    sys.stderr.flush()
    os._exit(EXIT_RESTARTABLE)
