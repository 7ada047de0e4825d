"""The place in a terminal where pipelines are drawn, below all lines that are written meanwhile."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live

from cdc.engine.views import PipelineView
from cdc.screen.picture import counts, picture
from cdc.screen.rates import Rates

_EVERY = 0.25  # seconds
_IDLE_EVERY = 1.0


class Terminal:
    """Pictures of one or several pipelines, one below the other, drawn again while something comes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._views: dict[str, PipelineView] = {}
        self._rates: dict[str, Rates] = {}
        self._drawn = 0.0
        self._news: list[tuple[object, ...]] = []
        self._size = console.size
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Terminal:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self._live.__exit__(None, None, None)

    def show(self, name: str, view: PipelineView) -> None:
        """Have a pipeline be a part of the picture, as it is now."""
        self._views[name] = view

    def draw(self) -> None:
        """Draw the picture if it is time to: seldom while nothing comes, since a picture costs some milliseconds."""
        views = self._views.values()
        news: list[tuple[object, ...]] = [
            (view.phase, view.rows_copied, view.rows_applied, view.lag_bytes, view.failure) for view in views
        ]
        is_news = news != self._news or self._console.size != self._size
        if time.monotonic() - self._drawn >= (_EVERY if is_news else _IDLE_EVERY):
            self._news, self._size = news, self._console.size
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        for name, view in self._views.items():
            self._rates.setdefault(name, Rates()).see(counts(view))
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        columns, lines = self._console.width, max(2, self._console.height - 1)
        shown = list(self._views.items())[:lines]
        each = lines // max(1, len(shown))
        return Group(*(picture(name, view, self._rates[name], columns, each) for name, view in shown))
