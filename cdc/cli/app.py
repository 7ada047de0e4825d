"""The typer program and what its commands share."""

from __future__ import annotations

import logging
import re
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

_PASSWORD = re.compile(r"^\w+://[^/?@]*:[^/?@]+@|[?&]password=[^&]")


def _warned(source: str) -> str:
    """Arguments can be seen by everybody on the machine, which a program cannot take back (E-03)."""
    if _PASSWORD.search(source):
        instead = "PGPASSWORD or ~/.pgpass" if source.startswith("postgres") else "MYSQL_PWD"
        log.warning("The password in the DSN is visible to every user of this machine (ps); use %s instead.", instead)
    return source


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="postgresql://user@host/database, mysql://..., mariadb://... or journal:DIR",
        callback=_warned,
    ),
]
TARGET_FORMS = "duckdb:FILE, ducklake:FILE, postgresql://HOST/DATABASE, jsonl:FILE, kafka://HOST or journal:DIR"
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help=TARGET_FORMS)]
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; before the command or after it.")] = False,
) -> None:
    configure(verbose=verbose)
