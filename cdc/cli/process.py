"""The process that runs a pipeline: what it has asked for, what it listens to, how it ends."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cdc.cli.app import messages
from cdc.cli.view import StatusFile, keep_status, watch
from cdc.connectors import JOURNAL, kind_of
from cdc.engine.fanout import FanOut
from cdc.engine.liveness import Stall
from cdc.engine.pipeline import Pipeline
from cdc.errors import EXIT_RESTARTABLE, OperatorNeeded
from cdc.options import Options
from cdc.runs import open_fanout, open_pipeline, serve_jobs
from cdc.service.address import Address
from cdc.service.notify import Notifier, NotifyOptions
from cdc.service.observed import ObservedPipeline
from cdc.service.service import Service
from cdc.whereabouts import own_socket

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.1  # seconds


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


class OnOperatorNeeded(StrEnum):
    """What a process does that only a person can help."""

    EXIT = "exit"
    WAIT = "wait"


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


def carry_out(wanted: Wanted, process: ProcessOptions) -> None:
    """Run it until its end.

    Raises:
        CdcError: it cannot go on.
    """
    notifier = Notifier(process.notify.receivers(), process.notify.slot_within)
    ending = Ending()
    with Service(process.listen, notifier) as service:
        observed = service.observe(wanted.source, wanted.target, wanted.options.name, wanted.max_lag)
        try:
            if wanted.feeds is not None:
                _feed(wanted, wanted.feeds, observed, ending)
            else:
                _run(wanted, observed, ending)
        except OperatorNeeded as error:
            notifier.stopped(wanted.options.name, " ".join(filter(None, (error.message, error.hint))))
            if process.on_operator_needed is OnOperatorNeeded.WAIT:
                # A container would be started again and again, and nobody would read what is wrong.
                log.error("%s %s The process waits for SIGTERM, and is not ready.", error.message, error.hint or "")
                ending.wait()
            raise


def _run(wanted: Wanted, observed: ObservedPipeline, ending: Ending) -> None:
    source, target, options = wanted.source, wanted.target, wanted.options
    pipeline = open_pipeline(source, target, options, end_process)
    observed.attach(pipeline)
    if kind_of(source) != JOURNAL:
        serve_jobs(pipeline, source, target, options)
    ending.stops(pipeline)
    file = StatusFile.of(target, options.name)
    pipeline.run_beside(lambda _: watch(pipeline, messages, file))


def _feed(wanted: Wanted, targets: Sequence[str], observed: ObservedPipeline, ending: Ending) -> None:
    """A journal, and targets that are fed from it, in one process."""
    source, journal, options = wanted.source, wanted.target, wanted.options
    for target in targets:
        own_socket(target, options.name)  # so that it is refused before anything is made

    def feed_made(pipeline: Pipeline, target: str) -> None:
        observed.feed(target, journal).attach(pipeline)
        pipeline.companions.append(lambda: keep_status(pipeline, StatusFile.of(target, options.name)))
        serve_jobs(pipeline, source, target, options)

    fanout = open_fanout(source, journal, targets, options, end_process, feed_made)
    observed.attach(fanout.writer)
    ending.stops(fanout)
    fanout.run(lambda _: watch(fanout.writer, messages, StatusFile.of(journal, options.name)))


class Ending:
    """SIGINT, SIGTERM and SIGHUP, which ask for the end."""

    def __init__(self) -> None:
        self._is_asked = False

    def stops(self, pipeline: Pipeline | FanOut) -> None:
        """Have them end a run at the next commit boundary (D-18)."""
        self._call(pipeline.stop)

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
    log.error("%s The process ends; it goes on from the checkpoint when it is started again. It hangs here:", stall)
    faulthandler.dump_traceback(file=sys.stderr)
    if messages.is_terminal:
        messages.show_cursor()
    sys.stderr.flush()
    os._exit(EXIT_RESTARTABLE)
