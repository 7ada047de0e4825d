"""The typer program and what its commands share."""

from __future__ import annotations

import logging
import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from cdc import options
from cdc.cli import completion
from cdc.cli.commands import COMMANDS, CONFIG, LOG_FORMAT, LOG_LEVEL, QUIET, VERBOSE, VERSION, apart
from cdc.cli.texts import read_lightly
from cdc.errors import UsageError
from cdc.logs import Form, Level, Settings, configure
from cdc.model.selection import Selection

log = logging.getLogger(__name__)


class Commands(TyperGroup):
    """The commands of `cdc.cli.commands`. Each is a line of help until somebody asks for it: only then is its module
    loaded, which registers it with the app."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lines = {name: TyperCommand(name, help=command.line) for name, command in COMMANDS.items()}
        self.commands = {**self._lines, **self.commands}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        read_lightly(self.get_params(ctx))
        of_all, rest = apart(args)
        return super().parse_args(ctx, [*of_all, *rest])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is self._lines.get(name):
            import_module(f"cdc.cli.{COMMANDS[name].module}")
            command = get_group(app).commands[name]
            if isinstance(command, TyperGroup):
                for each in command.commands.values():
                    read_lightly(each.get_params(ctx))
            if ctx.resilient_parsing:  # a shell asks: the options of all commands may stand here as well
                command.params += self.params
            read_lightly(command.get_params(ctx))
        return name, command, rest


app = typer.Typer(
    name="cdc",
    cls=Commands,
    help="Copy a PostgreSQL, MySQL or MariaDB database into DuckDB, then follow its log: nothing lost, nothing twice."
    "\n\nThe options below may stand before a command or after it.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to load what draws frames takes as long as all the rest
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_PIPELINE = re.compile(r"[a-z0-9_]+")
_PASSWORD = re.compile(r"^\w+://[^/?@]*:[^/?@]+@|[?&]password=[^&]")


def is_given(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter stands on the command line, be it one of the command or one of all commands."""
    sources = (owner.get_parameter_source(parameter) for owner in (context, context.find_root()))
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def _source(context: typer.Context, source: str) -> str:
    """SOURCE, or that of a pipeline which has this name in the file of settings.

    Arguments can be seen by everybody on the machine, which a program cannot take back (E-03).
    """
    if not is_given(context, "source") or context.resilient_parsing:
        return source
    if _PASSWORD.search(source):
        instead = "PGPASSWORD or ~/.pgpass" if source.startswith("postgres") else "MYSQL_PWD"
        log.warning("The password in the DSN is visible to every user of this machine (ps); use %s instead.", instead)
    if ":" in source and not is_given(context, "config"):
        return source
    from cdc.cli import settings

    return settings.of_source(context, source)


def _target(context: typer.Context, target: str) -> str:
    """TARGET, or that of a pipeline which has this name, where a command has no SOURCE."""
    is_name = target is not None and _PIPELINE.fullmatch(target) is not None
    if not is_name or context.resilient_parsing or "source" in context.params:
        return target
    from cdc.cli import settings

    return settings.of_target(context, target)


SOURCE_FORMS = "postgresql://user@host/database, mysql://..., mariadb://..., journal:DIR, or a pipeline of cdc.toml"
_SOURCE = typer.Argument(
    metavar="SOURCE", help=SOURCE_FORMS, show_default=False, callback=_source, autocompletion=completion.sources
)
SourceArgument = Annotated[str, _SOURCE]
TARGET_FORMS = "duckdb:FILE, ducklake:FILE, postgresql://HOST/DATABASE, jsonl:FILE, kafka://HOST or journal:DIR"
_TARGET = typer.Argument(
    metavar="TARGET", help=TARGET_FORMS, show_default=False, callback=_target, autocompletion=completion.targets
)
TargetArgument = Annotated[str, _TARGET]
OptionalTargetArgument = Annotated[str | None, _TARGET]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the pipeline; its slot is called cdc_NAME. [default: the name that TARGET has; at the first run "
        "the name of its file, shop for shop.duckdb]",
    ),
]
TablesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tables",
        "-t",
        metavar="PATTERN",
        help="Tables to follow, as schema.table with * and ?; may be repeated.",
        autocompletion=completion.tables,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        "-x",
        metavar="PATTERN",
        help="Tables to leave out; may be repeated.",
        autocompletion=completion.tables,
    ),
]
KeylessOption = Annotated[
    bool,
    typer.Option("--include-keyless", help="Also follow tables without a key, but only their inserts and truncates."),
]

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="How events are written: json, debezium or cloudevents. [default: json at the first run, then unchanged]",
    ),
]
StallTimeoutOption = Annotated[
    str,
    typer.Option(
        "--stall-timeout",
        metavar="DURATION",
        help="If the source makes no progress for this long, the process ends with 1. A target gets 12 times as long. "
        "After half of it, status is unhealthy.",
    ),
]
STALL_TIMEOUT = f"{options.STALL_TIMEOUT:.0f}s"


def selection(tables: list[str] | None, exclude: list[str] | None) -> Selection:
    """Patterns may also be separated by commas.

    Raises:
        UsageError: one is empty, as that of a shell's variable is which is not set.
    """

    def split(option: str, patterns: list[str] | None) -> tuple[str, ...]:
        parts = tuple(part.strip() for pattern in patterns or [] for part in pattern.split(","))
        if not all(parts):
            raise UsageError(
                f"{option} names no table.",
                hint=f"Is a variable of the shell empty? Without {option}, all tables are followed.",
            )
        return parts

    return Selection(split("--tables", tables), split("--exclude", exclude))


@app.callback()
def _options(
    version: Annotated[bool, typer.Option(VERSION, help="Show the version and exit.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            CONFIG,
            metavar="FILE",
            envvar="CDC_CONFIG",
            help="The file of settings. [default: cdc.toml, if it is there]",
        ),
    ] = None,
    log_format: Annotated[
        Form | None,
        typer.Option(LOG_FORMAT, envvar="CDC_LOG_FORMAT", help="Log lines as text, or one JSON object a line."),
    ] = None,
    log_level: Annotated[
        Level | None,
        typer.Option(LOG_LEVEL, envvar="CDC_LOG_LEVEL", help="The least severe lines that are logged. [default: info]"),
    ] = None,
    quiet: Annotated[bool, typer.Option(QUIET, envvar="CDC_QUIET", help="Log only errors, and draw nothing.")] = False,
    verbose: Annotated[bool, typer.Option(*VERBOSE, help=f"The same as {LOG_LEVEL} debug.")] = False,
) -> None:
    configure(Settings(log_format or Form.TEXT, Level.DEBUG if verbose else log_level or Level.INFO, quiet))
