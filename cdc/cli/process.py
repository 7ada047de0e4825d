"""The process that runs pipelines: what it has asked for, what it listens to, how it ends."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cdc.cli.consoles import messages
from cdc.cli.view import StatusFile, Watched, keep_status, watch
from cdc.connectors import JOURNAL, kind_of
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

    @property
    def targets(self) -> tuple[str, ...]:
        """All that it writes to."""
        return self.target, *(self.feeds or ())


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


def prepare(wanted: Wanted) -> Prepared:
    """Check both ends for form, and make what runs. Nothing is opened yet.

    Raises:
        UsageError: a DSN or an option is wrong.
    """
    source, target, options = wanted.source, wanted.target, wanted.options
    on_stall = partial(end_process, pipeline=options.name)
    status = StatusFile.of(target, options.name)
    if wanted.feeds is None:
        pipeline = open_pipeline(source, target, options, on_stall)
        attend(pipeline, wanted, target)
        return Prepared(Watched(options.name, pipeline, target, status), pipeline.run_beside, pipeline.stop)
    for feed in wanted.feeds:
        own_socket(feed, options.name)  # so that it is refused before anything is made
    fanout = open_fanout(source, target, wanted.feeds, options, on_stall, partial(_attend_feed, wanted))
    attend(fanout.writer, wanted, target)
    return Prepared(Watched(options.name, fanout.writer, target, status), fanout.run, fanout.stop)


def refuse_wrong(wanted: Wanted) -> None:
    """Raise UsageError if a DSN or an option is wrong. Nothing is opened."""
    if wanted.feeds is None:
        open_pipeline(wanted.source, wanted.target, wanted.options)
    else:
        open_fanout(wanted.source, wanted.target, wanted.feeds, wanted.options)


def attend(pipeline: Pipeline, wanted: Wanted, target: str) -> None:
    """Every pipeline that this process makes comes by here before it runs, also the one into a journal and those that
    are fed from it."""
    is_of_journal = kind_of(wanted.source) == JOURNAL or (wanted.feeds is not None and target == wanted.target)
    if not is_of_journal:  # in which there is nothing to compare
        serve_jobs(pipeline, wanted.source, target, wanted.options)


def _attend_feed(wanted: Wanted, pipeline: Pipeline, target: str) -> None:
    pipeline.companions.append(lambda: keep_status(pipeline, StatusFile.of(target, wanted.options.name)))
    attend(pipeline, wanted, target)


def carry_out(wanted: Wanted) -> None:
    """Run it until its end.

    Raises:
        CdcError: it cannot go on.
    """
    run = prepare(wanted)
    stop_on_signals(run.stop)
    run.run(lambda _: watch([run.watched], messages))


def carry_out_all(wanted: Sequence[Wanted]) -> None:
    """Run several until all of them have ended.

    Raises:
        CdcError: what has ended one of them, the worst if there are several.
    """
    from cdc.cli.together import Together

    together = Together(wanted)
    stop_on_signals(together.stop)
    together.run()


def stop_on_signals(stop: Callable[[], None]) -> None:
    """SIGINT, SIGTERM and SIGHUP end the run at the next commit boundary (D-18)."""

    def on_signal(_number: int, _frame: object) -> None:
        stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what `nohup` asks for
        signal.signal(signal.SIGHUP, on_signal)


def end_process(stall: Stall, pipeline: str = "") -> None:
    """A thread that hangs cannot be ended, and what it holds would keep an ordinary end waiting (E-01)."""
    of = f"Pipeline {pipeline}: " if pipeline else ""
    goes_on = "The process ends; it goes on from the checkpoint when it is started again. It hangs here:"
    log.error("%s%s %s", of, stall, goes_on)
    faulthandler.dump_traceback(file=sys.stderr)
    if messages.is_terminal:
        messages.show_cursor()
    sys.stderr.flush()
    os._exit(EXIT_RESTARTABLE)
