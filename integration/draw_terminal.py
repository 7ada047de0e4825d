"""`python -m integration.draw_terminal`: draw docs/terminal.svg, which shows `cdc run` in a terminal."""

from __future__ import annotations

import io
from collections.abc import Hashable
from pathlib import Path

from rich.console import Console

from cdc.engine.views import PipelineView, TableView
from cdc.model.position import Position
from cdc.model.schema import TableName
from cdc.model.standing import State
from cdc.screen.picture import picture
from cdc.screen.rates import Rates

_FILE = Path("docs/terminal.svg")
_COLUMNS, _LINES = 96, 10


class _Even(Rates):
    """Rates that a picture for the manual has: a hundredth of what was counted."""

    def __init__(self, view: PipelineView) -> None:
        super().__init__()
        self._view = view

    def of(self, name: Hashable) -> float:
        tables = self._view.tables
        rows = {each: table.rows_copied + table.inserted + table.updated for each, table in tables.items()}
        return (sum(rows.values()) if name is None else rows.get(name, 0) if isinstance(name, TableName) else 0) / 100


def _view(phase: str, **tables: TableView) -> PipelineView:
    view = PipelineView(phase=phase, tables={TableName("public", name): table for name, table in tables.items()})
    view.rows_copied = sum(table.rows_copied for table in tables.values())
    return view


def main() -> None:
    copying = _view(
        "copying",
        order_items=TableView(rows_estimated=90_000, rows_copied=41_230),
        orders=TableView(rows_estimated=30_000, rows_copied=22_004),
        customers=TableView(rows_estimated=2_000, rows_copied=2_000, state=State.FOLLOWING),
    )
    following = _view(
        "streaming",
        order_items=TableView(rows_copied=90_112, inserted=4_120, updated=1_876, deleted=310, state=State.FOLLOWING),
        orders=TableView(rows_copied=30_000, inserted=1_203, updated=998, deleted=104, state=State.FOLLOWING),
        customers=TableView(rows_copied=2_000, inserted=12, updated=57, state=State.FOLLOWING),
        prices=TableView(state=State.HELD, reason='a value of "amount" has no place in DECIMAL(38,2)'),
    )
    following.durable = Position(1, "0/16B3748")
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=_COLUMNS, color_system="truecolor")
    for view in (copying, following):
        console.print(picture("shop", view, _Even(view), _COLUMNS, _LINES))
        console.print()
    console.print("Stopped at 0/16B3748; run the same command to go on.", highlight=False)
    console.save_svg(str(_FILE), title="cdc run postgresql://app@db/shop duckdb:shop.duckdb")


if __name__ == "__main__":
    main()
