"""`cdc run`: copy, then follow."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from cdc.cli.app import (
    TARGET_FORMS,
    ExcludeOption,
    FormatOption,
    KeylessOption,
    NameOption,
    SourceArgument,
    StallTimeoutOption,
    TablesOption,
    app,
    messages,
    selection,
)
from cdc.cli.quantity import bytes_of, seconds_of
from cdc.cli.view import keep_status, watch
from cdc.config import JOURNAL, MEGABYTE, Options, kind_of, open_fanout, open_pipeline, serve_jobs, status_file
from cdc.errors import EXIT_RESTARTABLE, UsageError
from cdc.fanout import FanOut
from cdc.liveness import STALL_TIMEOUT, Stall
from cdc.pipeline import Pipeline
from cdc.target import Mode, Retention

log = logging.getLogger(__name__)


@app.command()
def run(
    source: SourceArgument,
    target: Annotated[str | None, typer.Argument(metavar="[TARGET]", help=TARGET_FORMS)] = None,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    name: NameOption = "cdc",
    include_keyless: KeylessOption = False,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="How DuckDB keeps the tables: as they are now; also every version of every row; or with the rows that "
            "were deleted. [default: as it does already, a mirror at first]"
        ),
    ] = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End once what the source had at the start is applied.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Sessions that read the snapshot. [default: number of cores]")
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="Megabytes that DuckDB may use.")] = 256,
    segment: Annotated[int, typer.Option(min=1, max=1024, help="Megabytes of log applied at a time, at most.")] = 16,
    event_format: FormatOption = "json",
    rotate: Annotated[
        int, typer.Option(min=1, help="Megabytes after which a file of events is followed by another.")
    ] = 256,
    verify_every: Annotated[
        str | None,
        typer.Option("--verify-every", metavar="TIME", help="Compare all tables in the background, as often: 1h, 30m."),
    ] = None,
    stall_timeout: StallTimeoutOption = STALL_TIMEOUT,
    journal: Annotated[
        str | None, typer.Option("--journal", metavar="DIR", help="Write a journal, and feed several targets from it.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="TARGET", help="A target to feed; may be given again.")
    ] = None,
    journal_age: Annotated[
        str | None,
        typer.Option("--journal-age", metavar="TIME", help="Let go of what is older and applied everywhere: 7d, 0s."),
    ] = None,
    journal_size: Annotated[
        str | None,
        typer.Option("--journal-size", metavar="SIZE", help="Let go of what is applied everywhere beyond this: 50GB."),
    ] = None,
    journal_budget: Annotated[
        str | None,
        typer.Option("--journal-budget", metavar="SIZE", help="Write no more than this, whoever is behind: 100GB."),
    ] = None,
) -> None:
    """Copy what SOURCE holds into TARGET, then follow its log. Goes on where it was when run again."""
    options = Options(
        name=name,
        selection=selection(tables, exclude),
        include_keyless=include_keyless,
        workers=workers or os.cpu_count() or 1,
        segment_bytes=segment * MEGABYTE,
        queue_bytes=3 * segment * MEGABYTE,
        target_memory=memory * MEGABYTE,
        mode=mode,
        format=event_format,
        rotate_bytes=rotate * MEGABYTE,
        until_caught_up=until_caught_up,
        stall_timeout=stall_timeout,
        verify_every=_every(verify_every),
        retention=Retention(seconds_of(journal_age), bytes_of(journal_size), bytes_of(journal_budget)),
    )
    if journal is not None:
        if target is not None:
            raise UsageError("With --journal, targets are named by --to.", hint=f"Write --to {target}.")
        _run_fanout(source, f"journal:{journal.removeprefix('journal:')}", to or [], options)
        return
    if target is None or to:
        raise UsageError(
            "There is no target." if target is None else "--to needs --journal.",
            hint="Write cdc run SOURCE TARGET, or cdc run SOURCE --journal DIR --to TARGET --to TARGET.",
        )
    pipeline = open_pipeline(source, target, options, end_process)
    if kind_of(source) != JOURNAL:
        serve_jobs(pipeline, source, target, options)
    stop_on_signals(pipeline)
    pipeline.run_beside(lambda _: watch(pipeline, messages, status_file(target, name)))


def _run_fanout(source: str, journal: str, targets: list[str], options: Options) -> None:
    """A journal, and targets that are fed from it, in one process."""

    def feed_made(pipeline: Pipeline, target: str) -> None:
        pipeline.companions.append(lambda: keep_status(pipeline, status_file(target, options.name)))
        serve_jobs(pipeline, source, target, options)

    fanout = open_fanout(source, journal, targets, options, end_process, feed_made)
    stop_on_signals(fanout)
    fanout.run(lambda _: watch(fanout.writer, messages, status_file(journal, options.name)))


def stop_on_signals(pipeline: Pipeline | FanOut) -> None:
    """SIGINT and SIGTERM end the run at the next commit boundary (D-18)."""

    def stop(_number: int, _frame: object) -> None:
        pipeline.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def end_process(stall: Stall) -> None:
    """A thread that hangs cannot be ended, and what it holds would keep an ordinary end waiting (E-01)."""
    log.error("%s The process ends; it goes on from the checkpoint when it is started again. It hangs here:", stall)
    faulthandler.dump_traceback(file=sys.stderr)
    if messages.is_terminal:
        messages.show_cursor()
    sys.stderr.flush()
    os._exit(EXIT_RESTARTABLE)


def _every(text: str | None) -> float | None:
    """An interval, which is not 0."""
    seconds = seconds_of(text)
    if seconds == 0:
        raise UsageError(f"{text!r} is no interval.", hint="Write it as 30m or 1h.")
    return seconds
