"""`cdc journal`: what a journal holds, whether it is whole, and letting go of what is not needed."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer
from rich.table import Table

from cdc.cli.app import app
from cdc.cli.consoles import console
from cdc.cli.quantity import AgeOption, SizeOption, bytes_of, seconds_of
from cdc.errors import EXIT_RESTARTABLE, UsageError
from cdc.target import Retention

journal = typer.Typer(help="Look at a journal, check it, remove old files.")
app.add_typer(journal, name="journal")

FolderArgument = Annotated[str, typer.Argument(metavar="DIR", help="The journal's folder, or journal:DIR.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@journal.command("ls")
def list_(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """List the files in order: their records, size, times and positions."""
    from cdc.journal import folder_of
    from cdc.journal.inspect import list_files

    reports = list_files(folder_of(folder))
    if as_json:
        _print_json([asdict(report) for report in reports])
        return
    table = Table("file", "records", "bytes", "from", "to", "position")
    for report in reports:
        times = (_moment(report.first_commit), _moment(report.last_commit))
        table.add_row(report.name, f"{report.records:,}", f"{report.size:,}", *times, report.position or "-")
    console.print(table)


@journal.command()
def info(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Show how much there is, from where to where, and how far each of its targets is."""
    from cdc.journal import folder_of
    from cdc.journal.inspect import list_files
    from cdc.journal.moment import first_state
    from cdc.journal.retention import read_readers

    at = folder_of(folder)
    readers = read_readers(at)  # before what there is, which grows: no target is further than that
    manifest, reports = at.read_manifest(), list_files(at)
    begin = first_state(at)
    end = reports[-1].first + reports[-1].records if reports else 0
    commits = [moment for report in reports for moment in (report.first_commit, report.last_commit) if moment]
    facts = {
        "journal": manifest.journal,
        "pipeline": manifest.pipeline,
        "source": manifest.source,
        "records": [manifest.first, end],
        "bytes": sum(report.size for report in reports),
        "files": len(reports),
        "from": _moment(commits[0]) if commits else None,
        "to": _moment(commits[-1]) if commits else None,
        "begins": begin.position.text if begin is not None else None,
        "position": reports[-1].position if reports else None,
        "has_copy": manifest.first == 0,
        "targets": [asdict(reader) | {"records_behind": end - reader.next} for reader in readers],
    }
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        if name != "targets":
            console.print(f"{name:10} {value}", highlight=False, markup=False)
    for reader in readers:
        seen = time.time() - reader.seen_at
        said = f"at record {reader.next:,}, {end - reader.next:,} to apply, seen {seen:,.0f} s ago"
        console.print(f"target     {reader.name} ({reader.reader}): {said}", highlight=False, markup=False)


@journal.command()
def verify(folder: FolderArgument) -> None:
    """Read every record, and compare it with its checksum. Ends with 1 if anything is damaged."""
    from cdc.journal import folder_of
    from cdc.journal.inspect import verify_files

    broken = 0
    for name, error in verify_files(folder_of(folder)):
        broken += error is not None
        console.print(f"{name}  {error or 'whole'}", highlight=False, markup=False, soft_wrap=True)
    if broken:
        raise typer.Exit(EXIT_RESTARTABLE)


@journal.command()
def repair(folder: FolderArgument) -> None:
    """Write durable.json again, from the data files, if it was lost. Only while nobody writes the journal."""
    from cdc.journal import folder_of
    from cdc.journal.writer import Writer

    at = folder_of(folder)
    at.read_manifest()
    writer = Writer(at).open()
    writer.close()
    position = writer.checkpoint.position if writer.checkpoint is not None else "-"
    console.print(f"{writer.next:,} records, up to {position}", highlight=False, markup=False)


@journal.command("prune")
def prune_(folder: FolderArgument, age: AgeOption = None, size: SizeOption = None) -> None:
    """Remove the oldest files that all targets have applied. Only while nobody writes the journal."""
    from cdc.journal import folder_of
    from cdc.journal.retention import prune
    from cdc.journal.writer import Writer

    if age is None and size is None:
        raise UsageError("Neither --age nor --size is given.", hint=f"For example: cdc journal prune {folder} --age 7d")
    at = folder_of(folder)
    at.read_manifest()
    writer = Writer(at).open()
    try:
        gone = prune(writer, at, Retention(seconds_of("--age", age), bytes_of("--size", size)))
    finally:
        writer.close()
    for entry in gone:
        console.print(f"removed {at.file(entry.first).name}", highlight=False, markup=False)


@journal.command()
def forget(
    folder: FolderArgument, target: Annotated[str, typer.Argument(help="Its name, as `cdc journal info` shows it.")]
) -> None:
    """Stop keeping records for a target that is gone."""
    from cdc.journal import folder_of
    from cdc.journal.retention import forget_reader, read_readers

    at = folder_of(folder)
    chosen = [reader for reader in read_readers(at) if target in (reader.reader, reader.name)]
    if not chosen:
        raise UsageError(
            f"No target {target!r} is fed from {at.path}.", hint=f"`cdc journal info {at.path}` lists the targets."
        )
    if len(chosen) > 1:
        raise UsageError(
            f"Several targets are called {target}.",
            hint="Name it by the number in brackets, which `cdc journal info` shows.",
        )
    forget_reader(at, chosen[0].reader)


def _moment(micros: int | None) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds") if micros is not None else "-"


def _print_json(what: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
