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
    """What to do about an error that concerns one table."""

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
            help="What the target keeps: the tables as they are now; also every version of every row; or also the "
            "deleted rows, marked. [default: mirror at the first run, then unchanged]"
        ),
    ] = None,
    keys: Annotated[
        Keys | None,
        typer.Option(
            help="PostgreSQL: make an index for each key, or a primary key. [default: index at the first run, then "
            "unchanged]"
        ),
    ] = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when everything is applied that the source had at the start.")
    ] = False,
    wait_for_tables: Annotated[
        bool, typer.Option("--wait-for-tables", help="If SOURCE has no tables yet at the first run, wait for them.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Number of sessions that copy tables. [default: number of cores]")
    ] = None,
    memory: MemoryOption = None,
    segment: Annotated[
        str, typer.Option(metavar="SIZE", help="How much of the log is applied at a time, at most: 1MB to 1GB.")
    ] = "16MB",
    event_format: FormatOption = None,
    rotate: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Size at which a new file of events begins. [default: 256MB]"),
    ] = None,
    verify_every: Annotated[
        str | None,
        typer.Option(
            "--verify-every",
            metavar="DURATION",
            help="Compare all tables in the background, once per interval: 1h, 30m.",
        ),
    ] = None,
    on_table_error: Annotated[
        OnTableError,
        typer.Option(
            "--on-table-error",
            help="What to do about an error that concerns one table: hold that table while the others go on, or stop "
            "all.",
        ),
    ] = OnTableError.HOLD,
    verify_after_ddl: Annotated[
        AfterShape,
        typer.Option(
            "--verify-after-ddl",
            help="How much of a table is compared with the source after its shape has changed. A table whose rows may "
            "have changed is always compared completely.",
        ),
    ] = AfterShape.SAMPLE,
    max_rate: Annotated[
        float | None,
        typer.Option("--max-rate", min=1, help="How many rows of a suspect table are compared per second, at most."),
    ] = None,
    stall_timeout: StallTimeoutOption = STALL_TIMEOUT,
    publish: Annotated[
        Path | None,
        typer.Option(
            "--publish",
            metavar="FILE",
            help="Keep a copy of the DuckDB file, which other processes can read: always complete, always at a commit.",
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
            help="Serve that copy to readers, in a process of its own: pg://HOST:PORT (PostgreSQL protocol), "
            "flight://HOST:PORT (Arrow Flight SQL) or http://HOST:PORT; may be repeated.",
        ),
    ] = None,
    serve_memory: Annotated[
        str | None,
        typer.Option("--serve-memory", metavar="SIZE", help="Memory that DuckDB may use for readers. [default: 512MB]"),
    ] = None,
    serve_timeout: Annotated[
        str | None,
        typer.Option("--serve-timeout", metavar="DURATION", help="How long one query may take. [default: 60s]"),
    ] = None,
    serve_tls_cert: Annotated[
        Path | None, typer.Option("--serve-tls-cert", metavar="FILE", help="The certificate for --serve, in PEM.")
    ] = None,
    serve_tls_key: Annotated[
        Path | None, typer.Option("--serve-tls-key", metavar="FILE", help="The key of that certificate, in PEM.")
    ] = None,
    journal: Annotated[
        str | None, typer.Option("--journal", metavar="DIR", help="Write a journal, and feed several targets from it.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="TARGET", help="A target to feed from the journal; may be repeated."),
    ] = None,
    live_cpu: Annotated[
        str,
        typer.Option(
            "--live-cpu", metavar="PERCENT", help="How much of a core commits of small changes may take: 10%."
        ),
    ] = "10%",
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            help="Time between commits of small changes to a lake: 10s; 0s commits each at once. [default: 5s]",
        ),
    ] = None,
    journal_age: Annotated[
        str | None,
        typer.Option(
            "--journal-age",
            metavar="DURATION",
            help="Remove records that are older and that all targets have applied: 7d, 0s.",
        ),
    ] = None,
    journal_size: Annotated[
        str | None,
        typer.Option(
            "--journal-size",
            metavar="SIZE",
            help="Remove the oldest records that all targets have applied if there is more than this: 50GB.",
        ),
    ] = None,
    journal_budget: Annotated[
        str | None,
        typer.Option(
            "--journal-budget", metavar="SIZE", help="The most that is written, even if a target is behind: 100GB."
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            rich_help_panel=PROCESS,
            metavar="HOST:PORT",
            help="Serve the state over HTTP: a page, /livez, /readyz, /metrics, /status.json. :9464 serves this "
            "machine only.",
        ),
    ] = None,
    max_lag: Annotated[
        str,
        typer.Option(
            "--max-lag", metavar="DURATION", help="Not ready if the target is behind by more than this: 90s, 5m, 1h."
        ),
    ] = "5m",
    notify: Annotated[
        list[str] | None,
        typer.Option(
            "--notify",
            rich_help_panel=PROCESS,
            metavar="URL",
            envvar="CDC_NOTIFY",
            show_envvar=False,
            help="Send alerts to a service that apprise knows: slack://..., mailto://...; may be repeated. Put URLs "
            "with secrets into CDC_NOTIFY, with spaces between them: other users can see arguments.",
        ),
    ] = None,
    notify_command: Annotated[
        str | None,
        typer.Option(
            "--notify-command",
            rich_help_panel=PROCESS,
            metavar="COMMAND",
            help="Run a program for each alert. It gets the alert as JSON on its standard input.",
        ),
    ] = None,
    notify_slot: Annotated[
        str,
        typer.Option(
            "--notify-slot",
            rich_help_panel=PROCESS,
            metavar="DURATION",
            help="Alert if the slot will be lost within this time: 6h, 24h, 3d.",
        ),
    ] = "24h",
    on_operator_needed: Annotated[
        OnOperatorNeeded,
        typer.Option(
            "--on-operator-needed",
            rich_help_panel=PROCESS,
            help="What to do about an error that needs a person: end with 3, or wait, not ready, to be stopped. Use "
            "wait where a supervisor would start the process again and again.",
        ),
    ] = OnOperatorNeeded.EXIT,
) -> object:
    """Copy what SOURCE holds into TARGET, then follow its log. If it runs again, it goes on where it was.

    SOURCE can be the name of a pipeline in cdc.toml. Without SOURCE, all pipelines of that file run in one process.
    """
    if journal is not None and target is not None:
        raise UsageError("With --journal, targets are named by --to.", hint=f"Write --to {without_password(target)}.")
    if journal is None and target is None and ":" not in source:
        raise UsageError(
            f"{source!r} is not a DSN, and no cdc.toml in this folder has a pipeline of that name.",
            hint="Write cdc run SOURCE TARGET, or name the file: cdc --config FILE run NAME",
        )
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
            "--serve needs --publish: readers get a copy, never the file that cdc writes.",
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
        raise UsageError(f"{option} {text!r} is not an interval.", hint="Write it as 30m or 1h.")
    return seconds
