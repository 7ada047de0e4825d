"""`cdc init`: a first file of settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from cdc.cli.app import SOURCE_FORMS, TARGET_FORMS, app
from cdc.cli.check import print_findings
from cdc.cli.completion import FILE
from cdc.cli.consoles import console
from cdc.connectors import database_module, make_observer, target_module
from cdc.errors import UsageError
from cdc.files.durable import replacing
from cdc.logs import printable
from cdc.model.selection import Selection
from cdc.observer import Selected
from cdc.options import NAMELESS, Options

_PASSWORD = re.compile(r"(?<=://)([^:@/?]*):[^?]*@")
_PASSWORD_OF_QUERY = re.compile(r"(?<=[?&])(\w*password=)[^&]+")
_SHOWN = 50  # tables


@app.command()
def init(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_FORMS)],
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help=f"{TARGET_FORMS}. [default: duckdb:NAME.duckdb]")
    ] = None,
) -> None:
    """Check SOURCE, then write a first cdc.toml with comments. --config names another file. It must not exist yet."""
    file: Path = context.find_root().params.get("config") or FILE
    if file.exists():
        raise UsageError(
            f"{file} is there already, and was not changed.",
            hint="Add the pipeline to it by hand, or write another file: cdc init SOURCE --config other.toml",
        )
    module = database_module(source)
    name = _name_of(module.database_of(source))
    target = target or f"duckdb:{name}.duckdb"
    target_module(target)
    fatal = print_findings(module.check_source(source, Selection()))
    with closing(make_observer(source, Options())) as observer:
        tables = observer.selected(Selection(default_schema=observer.default_schema))
    with replacing(file, 0o600) as written:  # somebody will put a password there
        written.write(_text(name, source, target, tables).encode())
    console.print(f"\n{file} is written.", highlight=False)
    if fatal:
        console.print(f"First put right the {fatal} things above that would stop replication.", highlight=False)
    of_file = "" if file == FILE else f" --config {file}"
    for what, command in (
        ("Read it, then see what it would do", f"cdc config check{of_file}"),
        ("Copy and follow", f"cdc run{of_file}"),
        ("See how it is", f"cdc status {name}{of_file}"),
    ):
        console.print(f"{what}: {printable(command)}", highlight=False, markup=False, soft_wrap=True)


def _name_of(database: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", database.lower()).strip("_")[:40] or NAMELESS


def _text(name: str, source: str, target: str, tables: Sequence[Selected]) -> str:
    variable = "PGPASSWORD" if source.startswith("postgres") else "MYSQL_PWD"
    return f"""\
# Settings of cdc. Every option of `cdc run` is a key. An editor knows them all after
#   cdc config schema > cdc.schema.json
# if this is the first line: #:schema ./cdc.schema.json

[pipelines.{name}]
# Secrets stay out of this file: ${{NAME}} is a variable of the environment. Without a password here, the one of
# {variable} is used.
source = {_address(source, "DB_PASSWORD")}
target = {_address(target, "TARGET_PASSWORD")}

# The tables to follow; all if it is left out. {_counted(tables)}
{chr(10).join(_lines(tables))}

# How the tables are kept: "mirror", "history" (also every version of every row) or "soft-delete".
# mode = "mirror"

# Compare all rows with the source, once per interval.
# verify-every = "1d"
"""


def _address(address: str, variable: str) -> str:
    """A source or a target as a text of TOML, with a variable in the place of its password (E-03)."""
    kept = _PASSWORD.sub(rf"\1:${{{variable}}}@", address.replace("${", "$${"))
    return json.dumps(_PASSWORD_OF_QUERY.sub(rf"\1${{{variable}}}", kept), ensure_ascii=False)


def _counted(tables: Sequence[Selected]) -> str:
    return f"These are there ({len(tables)}):" if tables else "There is no table yet."


def _lines(tables: Sequence[Selected]) -> Iterator[str]:
    yield "# tables = ["
    for table in sorted(tables, key=lambda each: str(each.schema.table))[:_SHOWN]:
        why = f"  # left out: {printable(table.left_out)}" if table.left_out is not None else ""
        yield f"#   {json.dumps(printable(str(table.schema.table)), ensure_ascii=False)},{why}"
    if len(tables) > _SHOWN:
        yield f"#   and {len(tables) - _SHOWN} more"
    yield "# ]"
