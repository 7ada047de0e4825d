"""`cdc targets`: what each kind of target can do, from what their packages say of themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import orjson
import typer
from rich.table import Table

from cdc.cli.app import app
from cdc.cli.consoles import console
from cdc.connectors import HoldsTables, KeepsHistories, OneFile, TargetKind, target_kind, target_kinds
from cdc.errors import UsageError
from cdc.model.schema import Column, Kind, LogicalType

_INT32 = LogicalType(Kind.INT32)
# A column of each type, by what a reader calls it.
_COLUMNS: Mapping[str, LogicalType] = {
    **{kind.value: LogicalType(kind) for kind in Kind if kind not in (Kind.DECIMAL, Kind.LIST)},
    "decimal(12,2)": LogicalType(Kind.DECIMAL, 12, 2),
    "decimal(60,2)": LogicalType(Kind.DECIMAL, 60, 2),
    "decimal without bounds": LogicalType(Kind.DECIMAL),
    "list of int32": LogicalType(Kind.LIST, element=_INT32, dimensions=1),
    "list of lists of int32": LogicalType(Kind.LIST, element=_INT32, dimensions=2),
    "list of text": LogicalType(Kind.LIST, element=LogicalType(Kind.TEXT), dimensions=1),
}
_ARE_TEXT = (Kind.TEXT, Kind.OPAQUE)


@dataclass(frozen=True, slots=True)
class Described:
    """What one kind of target can do; what needs a package that is not there has only its name.

    Attributes:
        schemes: by which a target of this kind is named.
        missing: what has to be done before more can be said.
        needs: what has to be installed beside this program.
        keyless: the modes in which a table may have no key.
        atomic: whole transactions become visible, in all tables at once.
        verifies: rows can be compared with the source's and set right.
        asks_past: answers questions about the past, in the mode that keeps it.
        backs_up: `cdc backup` makes a copy of it.
        types: what each type is held as; of the target's own types, if the source is of the same kind, all are.
        text: the types of these that become text.
    """

    schemes: Sequence[str]
    product: str = ""
    missing: str = ""
    keeps: str = ""
    needs: str = ""
    modes: Sequence[str] = ()
    keyless: Sequence[str] = ()
    atomic: bool = False
    verifies: bool = False
    asks_past: bool = False
    backs_up: bool = False
    notes: bool = False
    options: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    text: Sequence[str] = ()


def describe() -> list[Described]:
    """All kinds of target that there are."""
    return [_described(name, schemes) for name, schemes in target_kinds().items()]


def _described(name: str, schemes: Sequence[str]) -> Described:
    try:
        kind = target_kind(name)
    except UsageError as error:
        return Described(schemes, name, missing=f"{error.message} {error.hint}".strip())
    abilities = kind.ABILITIES
    types, text = _types(kind)
    return Described(
        schemes,
        abilities.product,
        keeps=abilities.keeps,
        needs=abilities.needs,
        modes=[mode.value for mode in abilities.modes],
        keyless=[mode.value for mode in abilities.keyless],
        atomic=abilities.is_atomic,
        verifies=abilities.compares,
        asks_past=isinstance(kind, KeepsHistories),
        backs_up=isinstance(kind, OneFile),
        notes=abilities.tells_notes,
        options=sorted(abilities.options),
        types=types,
        text=text,
    )


def _types(kind: TargetKind) -> tuple[dict[str, str], list[str]]:
    if not isinstance(kind, HoldsTables):
        return {}, []
    held = {name: kind.held_as(Column(name, "", each, 1), "") for name, each in _COLUMNS.items()}
    text = [name for name, as_ in held.items() if as_.is_text and _COLUMNS[name].kind not in _ARE_TEXT]
    return {name: as_.sql_type for name, as_ in held.items()}, text


def _rows(kinds: Sequence[Described]) -> list[tuple[str, list[str]]]:
    """What is said, with what is said of each kind."""
    yes: Mapping[bool, str] = {True: "yes", False: "no"}
    return [
        ("written as", [", ".join(f"{scheme}:" for scheme in kind.schemes) for kind in kinds]),
        ("keeps", [kind.keeps for kind in kinds]),
        ("modes", [", ".join(kind.modes) or "no" for kind in kinds]),
        ("tables without a key", [", ".join(kind.keyless) or "no" if kind.modes else "yes" for kind in kinds]),
        ("whole transactions, across tables", [yes[kind.atomic] for kind in kinds]),
        ("verify, repair", [yes[kind.verifies] for kind in kinds]),
        ("history, as-of, diff", [yes[kind.asks_past] for kind in kinds]),
        ("backup", [yes[kind.backs_up] for kind in kinds]),
        ("notes of applications", [yes[kind.notes] for kind in kinds]),
        ("types that become text", [", ".join(kind.text) or "no" if kind.types else "" for kind in kinds]),
        ("options of cdc run", [" ".join(kind.options) for kind in kinds]),
        ("needs", [kind.needs or kind.missing for kind in kinds]),
    ]


def markdown(kinds: Sequence[Described]) -> str:
    """The tables of docs/targets.md."""
    tables = [kind for kind in kinds if kind.types]
    lines = [f"| | {' | '.join(kind.product for kind in kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    lines += [f"| {name} | {' | '.join(said)} |" for name, said in _rows(kinds)]
    lines += ["", f"| type | {' | '.join(kind.product for kind in tables)} |", f"| --- |{' --- |' * len(tables)}"]
    lines += [f"| {name} | {' | '.join(f'`{kind.types[name]}`' for kind in tables)} |" for name in _COLUMNS]
    return "\n".join(lines) + "\n"


@app.command()
def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/targets.md.")] = False,
) -> None:
    """Show what each kind of target can do: modes, guarantees, questions, types, options."""
    kinds = describe()
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(kinds, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    if as_markdown:
        sys.stdout.write(markdown(kinds))
        return
    for index, kind in enumerate(kinds):
        table = Table("", kind.product, title_justify="left")
        for name, said in _rows(kinds):
            if said[index]:
                table.add_row(name, said[index])
        console.print(table)
