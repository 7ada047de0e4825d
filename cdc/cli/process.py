"""The process that runs a pipeline: what it has asked for, what it listens to, how it ends."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cdc.cli.app import messages
from cdc.cli.view import StatusFile, keep_status, watch
from cdc.connectors import JOURNAL, kind_of
from cdc.engine.fanout import FanOut
from cdc.engine.liveness import Stall
from cdc.engine.pipeline import Pipeline
from cdc.errors import EXIT_RESTARTABLE
from cdc.options import Options
from cdc.runs import open_fanout, open_pipeline, serve_jobs
from cdc.whereabouts import own_socket

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody has asked for.

    Attributes:
        target: what the source's changes go to; a journal (`journal:DIR`) where that feeds targets.
        feeds: the targets that are fed from the journal; None without one.
    """

    source: str
    target: str
    feeds: tuple[str, ...] | None
    options: Options


def carry_out(wanted: Wanted) -> None:
    """Run it until its end.

    Raises:
        CdcError: it cannot go on.
    """
    if wanted.feeds is not None:
        _feed(wanted, wanted.feeds)
        return
    source, target, options = wanted.source, wanted.target, wanted.options
    pipeline = open_pipeline(source, target, options, end_process)
    if kind_of(source) != JOURNAL:
        serve_jobs(pipeline, source, target, options)
    stop_on_signals(pipeline)
    file = StatusFile.of(target, options.name)
    pipeline.run_beside(lambda _: watch(pipeline, messages, file))


def _feed(wanted: Wanted, targets: Sequence[str]) -> None:
    """A journal, and targets that are fed from it, in one process."""
    source, journal, options = wanted.source, wanted.target, wanted.options
    for target in targets:
        own_socket(target, options.name)  # so that it is refused before anything is made

    def feed_made(pipeline: Pipeline, target: str) -> None:
        pipeline.companions.append(lambda: keep_status(pipeline, StatusFile.of(target, options.name)))
        serve_jobs(pipeline, source, target, options)

    fanout = open_fanout(source, journal, targets, options, end_process, feed_made)
    stop_on_signals(fanout)
    fanout.run(lambda _: watch(fanout.writer, messages, StatusFile.of(journal, options.name)))


def stop_on_signals(pipeline: Pipeline | FanOut) -> None:
    """SIGINT, SIGTERM and SIGHUP end the run at the next commit boundary (D-18)."""

    def stop(_number: int, _frame: object) -> None:
        pipeline.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what `nohup` asks for
        signal.signal(signal.SIGHUP, stop)


def end_process(stall: Stall) -> None:
    """A thread that hangs cannot be ended, and what it holds would keep an ordinary end waiting (E-01)."""
    log.error("%s The process ends; it goes on from the checkpoint when it is started again. It hangs here:", stall)
    faulthandler.dump_traceback(file=sys.stderr)
    if messages.is_terminal:
        messages.show_cursor()
    sys.stderr.flush()
    os._exit(EXIT_RESTARTABLE)
