"""What those see who look at pipelines that run: a picture, lines, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc.engine.views import PipelineView
from cdc.logs import Form, settings
from cdc.screen.lines import Lines

if TYPE_CHECKING:  # who has no terminal loads nothing that draws
    from rich.console import Console

    from cdc.screen.terminal import Terminal


class Nothing:
    """What those see who want to hear of errors alone."""

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, name: str, view: PipelineView) -> None: ...

    def draw(self) -> None: ...


def screen(console: Console | None, lines: Lines | None = None) -> Terminal | Lines | Nothing:
    """What shows pipelines to those who look at a console: a picture if it is a terminal that can have one.

    Args:
        console: None if it is no terminal for certain.
        lines: for any other, if it is not the log that they are written to.
    """
    if settings().is_quiet:
        return Nothing()
    if console is None or not console.is_terminal or console.is_dumb_terminal or settings().form is not Form.TEXT:
        return lines or Lines()
    from cdc.screen.terminal import Terminal  # noqa: PLC0415

    return Terminal(console)
