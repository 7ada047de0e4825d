"""`cdc repair`: read rows again that differ from those of the source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from cdc.cli.app import NameOption, SourceArgument, TargetArgument, app
from cdc.cli.consoles import console, messages
from cdc.errors import UsageError
from cdc.options import Options


@app.command()
def repair(
    source: SourceArgument,
    target: TargetArgument,
    from_verify: Annotated[
        Path | None, typer.Option("--from-verify", metavar="FILE", help="The report that `cdc verify --json` printed.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", help="Read the rows of this table again.")] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help="Only the rows of --table that fulfil this condition, in the source's SQL."),
    ] = None,
    name: NameOption = None,
) -> None:
    """Make rows of TARGET equal to SOURCE again, deletions included, while the log is followed.

    Each row is read at a known position, and put between the same two transactions of the stream.
    """
    from cdc.runs import have_done
    from cdc.whereabouts import name_of

    if (from_verify is None) == (table is None) or (where is not None and table is None):
        raise UsageError(
            "No rows are named: write --from-verify FILE, or --table T, with --where for some of its rows."
        )
    arguments = {"table": table, "where": where} if table is not None else {"tables": _tables(from_verify)}
    options = Options(name=name_of(source, target, name))
    with messages.status("repairing"):
        done = have_done(source, target, options, "repair", arguments, lambda _: None)
    for entry in done["tables"]:
        console.print(f"{entry['table']}: {entry['rows']:,} rows read again", highlight=False, markup=False)
    if not done["tables"]:
        console.print("There is nothing to repair.", highlight=False)


def _tables(file: Path | None) -> list[dict[str, object]]:
    assert file is not None
    try:
        tables: list[dict[str, object]] = orjson.loads(file.read_bytes())["tables"]
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not a report of `cdc verify --json`.") from error
    return tables
