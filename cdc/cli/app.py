"""The typer program and what its commands share."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import cdc
from cdc import options
from cdc.errors import UsageError
from cdc.logs import configure
from cdc.model.selection import Selection

app = typer.Typer(
    name="cdc",
    help="Copy a PostgreSQL, MySQL or MariaDB database into DuckDB, then follow its log: nothing lost, nothing twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
log = logging.getLogger(__name__)
console = Console()
messages = Console(stderr=True)

_PIPELINE = re.compile(r"[a-z0-9_]+")
_PASSWORD = re.compile(r"^\w+://[^/?@]*:[^/?@]+@|[?&]password=[^&]")


def is_given(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter of a command, or `config`, stands on the command line."""
    owner = context.find_root() if parameter == "config" else context
    source = owner.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


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
    from cdc.cli import settings  # noqa: PLC0415 - only who names a file or a pipeline needs this

    return settings.of_source(context, source)


def _target(context: typer.Context, target: str) -> str:
    """TARGET, or that of a pipeline which has this name, where a command has no SOURCE."""
    is_name = target is not None and _PIPELINE.fullmatch(target) is not None
    if not is_name or context.resilient_parsing or "source" in context.params:
        return target
    from cdc.cli import settings  # noqa: PLC0415 - as above

    return settings.of_target(context, target)


SOURCE_FORMS = "postgresql://user@host/database, mysql://..., mariadb://... or journal:DIR; or a pipeline of cdc.toml"
SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_FORMS, callback=_source)]
OptionalSourceArgument = Annotated[
    str, typer.Argument(metavar="[SOURCE]", help=SOURCE_FORMS, callback=_source, show_default=False)
]
TARGET_FORMS = "duckdb:FILE, ducklake:FILE, postgresql://HOST/DATABASE, jsonl:FILE, kafka://HOST or journal:DIR"
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help=TARGET_FORMS, callback=_target)]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        help="Name of the pipeline; its slot is called cdc_NAME. [default: as TARGET has it, or after TARGET at first: "
        "shop for shop.duckdb]",
    ),
]
TablesOption = Annotated[
    list[str] | None,
    typer.Option("--tables", "-t", help="Tables to follow, as schema.table with * and ?; may be given again."),
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option("--exclude", "-x", help="Tables to leave out; may be given again.")
]
KeylessOption = Annotated[
    bool,
    typer.Option("--include-keyless", help="Also follow tables without a key, for inserts and truncates only."),
]

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="How events are written: json, debezium or cloudevents. [default: as they are already, json at first]",
    ),
]
StallTimeoutOption = Annotated[
    str,
    typer.Option(
        "--stall-timeout",
        metavar="DURATION",
        help="For how long the source may make no progress before the process ends, with 1; a target gets 12 times as "
        "long. From half of that on, status is unhealthy.",
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
                f"{option} names no table.", hint=f"Is a variable of the shell empty? Without {option}, all are meant."
            )
        return parts

    return Selection(split("--tables", tables), split("--exclude", exclude))


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"cdc {cdc.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="CDC_CONFIG",
            help="The file of settings; before the command or after it. [default: cdc.toml, if it is there]",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; before the command or after it.")] = False,
) -> None:
    configure(verbose=verbose)
