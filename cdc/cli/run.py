"""`cdc run`: copy, then follow."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, overload

import typer

from cdc.cli.app import (
    STALL_TIMEOUT,
    ExcludeOption,
    FormatOption,
    KeylessOption,
    NameOption,
    OptionalTargetArgument,
    SourceArgument,
    StallTimeoutOption,
    TablesOption,
    app,
    selection,
)
from cdc.cli.quantity import LEAST_MEMORY, MemoryOption, bytes_of, seconds_of, share_of
from cdc.cli.settings import PROCESS, RunCommand
from cdc.errors import UsageError
from cdc.logs import without_password
from cdc.options import MEGABYTE, PUBLISH_EVERY, AfterShape, OnOperatorNeeded, Options, Serving
from cdc.target import Keys, Mode, Retention

_SERVE = "Write --publish FILE --serve pg://127.0.0.1:5433 as well."


class OnTableError(StrEnum):
    """What an error does that concerns one table."""

    HOLD = "hold"
    STOP = "stop"


@app.command(cls=RunCommand)
def run(
    source: SourceArgument = "",
    target: OptionalTargetArgument = None,
    tables: TablesOption = None,
    exclude: ExcludeOption = None,
    name: NameOption = None,
    include_keyless: KeylessOption = False,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="How the tables are kept: as they are now; also every version of every row; or with the rows that "
            "were deleted. [default: as it does already, a mirror at first]"
        ),
    ] = None,
    keys: Annotated[
        Keys | None,
        typer.Option(
            help="How the tables in PostgreSQL have their keys: with an index that finds rows, or as primary keys. "
            "[default: as they do already, an index at first]"
        ),
    ] = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End once what the source had at the start is applied.")
    ] = False,
    wait_for_tables: Annotated[
        bool, typer.Option("--wait-for-tables", help="Wait until SOURCE has the tables, at a first start.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Sessions that read the snapshot. [default: number of cores]")
    ] = None,
    memory: MemoryOption = None,
    segment: Annotated[
        str, typer.Option(metavar="SIZE", help="What is applied of the log at a time, at most: 1MB to 1GB.")
    ] = "16MB",
    event_format: FormatOption = None,
    rotate: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="When a file of events is followed by another. [default: 256MB]"),
    ] = None,
    verify_every: Annotated[
        str | None,
        typer.Option(
            "--verify-every", metavar="DURATION", help="Compare all tables in the background, as often: 1h, 30m."
        ),
    ] = None,
    on_table_error: Annotated[
        OnTableError,
        typer.Option(
            "--on-table-error",
            help="What an error does that concerns one table: hold that table while the others go on, or stop all.",
        ),
    ] = OnTableError.HOLD,
    verify_after_ddl: Annotated[
        AfterShape,
        typer.Option(
            "--verify-after-ddl",
            help="What of a table is compared with the source after its shape has changed. What may have changed rows "
            "is compared whole whatever this says.",
        ),
    ] = AfterShape.SAMPLE,
    max_rate: Annotated[
        float | None,
        typer.Option("--max-rate", min=1, help="Rows per second that are compared at most where a table is suspect."),
    ] = None,
    stall_timeout: StallTimeoutOption = STALL_TIMEOUT,
    publish: Annotated[
        Path | None,
        typer.Option(
            "--publish",
            metavar="FILE",
            help="Keep a copy of the DuckDB file that other processes can read meanwhile: always whole, always at a "
            "commit.",
        ),
    ] = None,
    publish_every: Annotated[
        str | None,
        typer.Option("--publish-every", metavar="DURATION", help="How often that copy is renewed. [default: 30s]"),
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option(
            "--serve",
            metavar="ADDRESS",
            help="Serve that copy to readers in a process of its own: pg://HOST:PORT (PostgreSQL protocol), "
            "flight://HOST:PORT (Arrow Flight SQL), http://HOST:PORT; may be given again.",
        ),
    ] = None,
    serve_memory: Annotated[
        str | None,
        typer.Option("--serve-memory", metavar="SIZE", help="What DuckDB may use for readers. [default: 512MB]"),
    ] = None,
    serve_timeout: Annotated[
        str | None,
        typer.Option("--serve-timeout", metavar="DURATION", help="How long one query may take. [default: 60s]"),
    ] = None,
    serve_tls_cert: Annotated[
        Path | None, typer.Option("--serve-tls-cert", metavar="FILE", help="A certificate in PEM for --serve.")
    ] = None,
    serve_tls_key: Annotated[Path | None, typer.Option("--serve-tls-key", metavar="FILE", help="Its key.")] = None,
    journal: Annotated[
        str | None, typer.Option("--journal", metavar="DIR", help="Write a journal, and feed several targets from it.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="TARGET", help="A target to feed; may be given again.")
    ] = None,
    live_cpu: Annotated[
        str, typer.Option("--live-cpu", metavar="PERCENT", help="Small commits may take so much of a core: 20%.")
    ] = "20%",
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            help="How far apart commits of small changes are in a lake: 10s, 0s for as they come. [default: 5s]",
        ),
    ] = None,
    journal_age: Annotated[
        str | None,
        typer.Option(
            "--journal-age", metavar="DURATION", help="Let go of what is older and applied everywhere: 7d, 0s."
        ),
    ] = None,
    journal_size: Annotated[
        str | None,
        typer.Option("--journal-size", metavar="SIZE", help="Let go of what is applied everywhere beyond this: 50GB."),
    ] = None,
    journal_budget: Annotated[
        str | None,
        typer.Option(
            "--journal-budget", metavar="SIZE", help="Write no more than this, whichever target is behind: 100GB."
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            rich_help_panel=PROCESS,
            metavar="HOST:PORT",
            help="Answer over HTTP how it is: a page, /livez, /readyz, /metrics, /status.json. :9464 is this machine "
            "alone.",
        ),
    ] = None,
    max_lag: Annotated[
        str, typer.Option("--max-lag", metavar="DURATION", help="Not ready when it is behind for longer: 90s, 5m, 1h.")
    ] = "5m",
    notify: Annotated[
        list[str] | None,
        typer.Option(
            "--notify",
            rich_help_panel=PROCESS,
            metavar="URL",
            envvar="CDC_NOTIFY",
            show_envvar=False,
            help="Send alerts to a service that apprise knows: slack://..., mailto://...; may be given again. Others "
            "see arguments: URLs with secrets go into CDC_NOTIFY, with spaces between them.",
        ),
    ] = None,
    notify_command: Annotated[
        str | None,
        typer.Option(
            "--notify-command",
            rich_help_panel=PROCESS,
            metavar="COMMAND",
            help="Run a program for each alert, which gets it as JSON on its standard input.",
        ),
    ] = None,
    notify_slot: Annotated[
        str,
        typer.Option(
            "--notify-slot",
            rich_help_panel=PROCESS,
            metavar="DURATION",
            help="Alert when the slot will be lost within this: 6h, 24h, 3d.",
        ),
    ] = "24h",
    on_operator_needed: Annotated[
        OnOperatorNeeded,
        typer.Option(
            "--on-operator-needed",
            rich_help_panel=PROCESS,
            help="What follows an error that only a person can help: end with 3, or stay alive, not ready, and wait to "
            "be stopped, where something would start it again and again.",
        ),
    ] = OnOperatorNeeded.EXIT,
) -> object:
    """Copy what SOURCE holds into TARGET, then follow its log. Goes on where it was when run again.

    SOURCE can be the name of a pipeline of cdc.toml. Without it, all pipelines of that file run in one process.
    """
    if journal is not None and target is not None:
        raise UsageError("With --journal, targets are named by --to.", hint=f"Write --to {without_password(target)}.")
    if journal is None and (target is None or to):
        raise UsageError(
            "There is no target." if target is None else "--to needs --journal.",
            hint="Write cdc run SOURCE TARGET, or cdc run SOURCE --journal DIR --to TARGET --to TARGET.",
        )
    from cdc.cli.process import ProcessOptions, Wanted
    from cdc.service.address import Address
    from cdc.service.notify import NotifyOptions
    from cdc.whereabouts import name_of

    if publish_every is not None and publish is None:
        raise UsageError("--publish-every needs --publish.", hint="Write --publish FILE as well.")
    if serve and publish is None:
        raise UsageError(
            "--serve needs --publish: readers get a copy, and never the file that is written.",
            hint=f"Write --publish FILE --serve {serve[0]}.",
        )
    if not serve and any(given is not None for given in (serve_memory, serve_timeout, serve_tls_cert, serve_tls_key)):
        raise UsageError("--serve-memory, --serve-timeout and --serve-tls-... need --serve.", hint=_SERVE)
    writes_to = target or f"journal:{(journal or '').removeprefix('journal:')}"
    segment_bytes = bytes_of("--segment", segment, least=MEGABYTE, most=1024 * MEGABYTE)
    options = Options(
        name=name_of(source, writes_to, name),
        selection=selection(tables, exclude),
        include_keyless=include_keyless,
        workers=workers or os.cpu_count() or 1,
        segment_bytes=segment_bytes,
        queue_bytes=3 * segment_bytes,
        live_share=share_of("--live-cpu", live_cpu),
        every=seconds_of("--every", every),
        target_memory=bytes_of("--memory", memory, least=LEAST_MEMORY),
        mode=mode,
        keys=keys,
        format=event_format,
        rotate_bytes=bytes_of("--rotate", rotate, least=1),
        until_caught_up=until_caught_up,
        waits_for_tables=wait_for_tables,
        holds_tables=on_table_error is OnTableError.HOLD,
        after_shape=verify_after_ddl,
        max_rate=max_rate,
        stall_timeout=_every("--stall-timeout", stall_timeout),
        verify_every=_every("--verify-every", verify_every),
        publish=publish,
        publish_every=_every("--publish-every", publish_every) or PUBLISH_EVERY,
        serving=Serving(
            tuple(serve),
            bytes_of("--serve-memory", serve_memory or "512MB", least=LEAST_MEMORY),
            _every("--serve-timeout", serve_timeout or "60s"),
            serve_tls_cert,
            serve_tls_key,
        )
        if serve
        else None,
        retention=Retention(
            seconds_of("--journal-age", journal_age),
            bytes_of("--journal-size", journal_size),
            bytes_of("--journal-budget", journal_budget),
        ),
    )
    of_pipeline = Wanted(
        source, writes_to, tuple(to or ()) if target is None else None, options, seconds_of("--max-lag", max_lag)
    )
    listens_at = Address.parse(listen) if listen is not None else None
    notified = NotifyOptions(tuple(notify or ()), notify_command, seconds_of("--notify-slot", notify_slot))
    return of_pipeline, ProcessOptions(listens_at, notified, on_operator_needed)


@overload
def _every(option: str, text: str) -> float: ...
@overload
def _every(option: str, text: str | None) -> float | None: ...
def _every(option: str, text: str | None) -> float | None:
    """An interval, which is not 0."""
    seconds = seconds_of(option, text)
    if seconds == 0:
        raise UsageError(f"{option} {text!r} is no interval.", hint="Write it as 30m or 1h.")
    return seconds
