"""A pipeline that runs, as a terminal shows it: in so many columns and lines, whatever its tables are called."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cdc.engine.views import PipelineView, TableView
from cdc.logs import printable
from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.screen.rates import Rates, duration, size

_WORDS = {"opening": "opening", "streaming": "following", "waiting": "trying again"}
_STYLES = {"streaming": "bold green", "copying": "bold cyan", "waiting": "bold yellow"}
_TROUBLES = {State.HELD: "bold red", State.SUSPECT: "bold yellow", State.LEFT_OUT: "dim"}
_REASON_LINES = 3
_WIDE = 80  # columns, from which on there is room for more than what is asked most

_Entry = tuple[TableName, TableView]


def picture(name: str, view: PipelineView, rates: Rates, columns: int, lines: int) -> RenderableType:
    """What one pipeline does.

    Args:
        rates: of rows, by the names of tables, and in all by `None`.
        columns, lines: that there are at most.
    """
    tables = list(view.tables.items())
    parts: list[RenderableType] = [_state(name, view, rates)]
    notes = [*_failures(view, columns), *_troubles(tables, columns)]
    notes = _as_many_as_fit(notes, max(1, (lines - 1) // 2), columns)
    left = lines - 1 - sum(_height(note, columns) for note in notes)
    if left >= 2 and tables:
        parts += (
            _copies(tables, rates, columns, left) if view.phase == "copying" else _changes(tables, rates, columns, left)
        )
    return Group(*parts, *notes)


def counts(view: PipelineView) -> dict[Hashable, int]:
    """The rows of each table so far, and of all of them, of which `Rates` make rates."""
    found: dict[Hashable, int] = {name: _rows(table) for name, table in list(view.tables.items())}
    found[None] = view.rows_copied + view.rows_applied
    return found


def _rows(table: TableView) -> int:
    return table.rows_copied + table.inserted + table.updated + table.deleted


def _line(*parts: str | tuple[str, str]) -> Text:
    """One line, cut off at the end if there is no room."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _state(name: str, view: PipelineView, rates: Rates) -> Text:
    """How it is, in a line, with what matters most first."""
    is_there = view.phase == "streaming" and view.durable is not None and not view.lag_bytes
    word = "following, caught up" if is_there else _WORDS.get(view.phase, view.phase)
    parts: list[str | tuple[str, str]] = [(printable(name), "bold"), "  ", (word, _STYLES.get(view.phase, "bold"))]
    rate = rates.of(None)
    if view.phase == "copying":
        parts.append(f"  {view.rows_copied:,} rows")
        expected = sum(table.rows_estimated for table in list(view.tables.values()))
        if expected > view.rows_copied and rate:
            parts.append(f", {duration((expected - view.rows_copied) / rate)} left")
    if view.durable is not None or view.lag_seconds:
        parts.append(f"  lag {size(view.lag_bytes)}, {view.lag_seconds:.1f} s")
    if view.durable is not None:
        parts.append((f"  at {printable(view.durable.text)}", "dim"))
    parts.append(f"  {rate:,.0f} rows/s")
    return _line(*parts)


def _failures(view: PipelineView, columns: int) -> Iterable[Text]:
    if view.stall is not None:
        yield _cut(Text.assemble(("stalled ", "bold red"), printable(str(view.stall))), columns)
    if view.failure and view.phase != "stopped":  # which ends with an error that says the same
        yield _cut(Text.assemble(("failing ", "bold red"), printable(view.failure)), columns)


def _troubles(tables: Sequence[_Entry], columns: int) -> Iterable[Text]:
    """The tables that are not simply followed, those that need somebody first."""
    for state, style in _TROUBLES.items():
        for name, table in sorted(entry for entry in tables if entry[1].state is state):
            reason = f": {printable(table.reason)}" if table.reason else ""
            yield _cut(Text.assemble((f"{state.value} ", style), (printable(str(name)), "bold"), reason), columns)


def _cut(text: Text, columns: int) -> Text:
    """A sentence that takes no more than a few lines."""
    text.truncate(_REASON_LINES * columns - columns // 3, overflow="ellipsis")
    return text


def _height(text: Text, columns: int) -> int:
    """The lines that a text takes, at most: words are not broken."""
    return 1 if cell_len(text.plain) <= columns else _REASON_LINES


def _as_many_as_fit(notes: Sequence[Text], lines: int, columns: int) -> list[Text]:
    shown: list[Text] = []
    left = lines
    for number, note in enumerate(notes):
        rest = len(notes) - number
        if left == 1 and rest > 1 and shown:
            return [*shown, _more(rest)]
        if not left:
            break
        if _height(note, columns) > left - (rest > 1 and left > 1):
            note.truncate(columns, overflow="ellipsis")
        left -= _height(note, columns)
        shown.append(note)
    return shown


def _more(count: int) -> Text:
    return _line((f"and {count:,} more", "dim"))


def _grid(columns: int, *headers: str) -> Table:
    """A table without frames: the names on the left take what the numbers leave."""
    grid = Table(
        box=None, pad_edge=False, width=columns, header_style="dim", padding=(0, 2, 0, 0), collapse_padding=True
    )
    for header in headers:
        is_name = header == "table"
        grid.add_column(
            header,
            justify="left" if is_name else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_name else None,
            min_width=8 if is_name else None,
        )
    return grid


def _chosen(entries: Sequence[_Entry], lines: int) -> tuple[list[_Entry], int]:
    """Those for which there is room below the headers, and how many more there are."""
    room = lines - 1
    if len(entries) <= room:
        return list(entries), 0
    return list(entries[: room - 1]), len(entries) - (room - 1)


def _changes(tables: Sequence[_Entry], rates: Rates, columns: int, lines: int) -> list[RenderableType]:
    """What came of each table in this run, the busiest first."""
    busiest = heapq.nlargest(lines, tables, key=lambda entry: _rows(entry[1]))
    shown, _ = _chosen(busiest, lines) if len(tables) >= lines else (busiest, 0)
    is_wide = columns >= _WIDE
    grid = _grid(columns, "table", *(["copied"] if is_wide else []), "inserted", "updated", "deleted", "rows/s")
    for name, table in shown:
        numbers = [table.rows_copied] if is_wide else []
        numbers += [table.inserted, table.updated, table.deleted]
        cells = [Text(f"{number:,}" if number else "-") for number in numbers]
        grid.add_row(Text(printable(str(name))), *cells, Text(f"{rates.of(name):,.0f}"))
    more = len(tables) - len(shown)
    return [grid, _more(more)] if more else [grid]


def _copies(tables: Sequence[_Entry], rates: Rates, columns: int, lines: int) -> list[RenderableType]:
    """How far the copy of each table is; those that are at work first, those that are done last."""

    def order(entry: _Entry) -> tuple[bool, bool, int]:
        table = entry[1]
        return _is_done(table), not table.rows_copied, -table.rows_estimated

    busiest = heapq.nsmallest(lines, tables, key=order)
    shown, _ = _chosen(busiest, lines) if len(tables) >= lines else (busiest, 0)
    is_wide = columns >= _WIDE
    grid = _grid(columns, "table", "", "rows", *(["rows/s"] if is_wide else []), "left")
    for name, table in shown:
        rate, missing = rates.of(name), table.rows_estimated - table.rows_copied
        left = "done" if _is_done(table) else duration(missing / rate) if rate and missing > 0 else "-"
        total = max(table.rows_estimated, table.rows_copied, 1)
        grid.add_row(
            Text(printable(str(name))),
            ProgressBar(total=total, completed=total if _is_done(table) else table.rows_copied, width=columns // 4),
            Text(f"{table.rows_copied:,}"),
            *([Text(f"{rate:,.0f}")] if is_wide else []),
            Text(left),
        )
    more = len(tables) - len(shown)
    return [grid, _more(more)] if more else [grid]


def _is_done(table: TableView) -> bool:
    return table.state is State.FOLLOWING
