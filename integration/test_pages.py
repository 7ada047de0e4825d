"""What pages show is what the program says: their commands are run, and say it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.pages import blocks, said_by, shape
from tests.seeds import some

ROOT = Path(__file__).parent.parent
RUN = sorted(
    str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if "<!-- servers:" in page.read_text()
)


@pytest.mark.parametrize("name", ["README.md", *some(RUN, 1, "pages")])
def test_a_page_shows_what_its_commands_say(name: str) -> None:
    """`python -m integration.pages NAME` writes what they say now."""
    text = (ROOT / name).read_text()
    shown = [block for block in blocks(text) if block.is_shown]
    now = [block for block in said_by(text) if block.is_shown]
    assert shown
    for page, run in zip(shown, now, strict=True):
        for (command, expected), (_, said) in zip(page.said, run.said, strict=True):
            assert shape(said) == shape(expected), f"{command}\n{said}"


def test_every_quick_start_is_run() -> None:
    """Also those that no commit has chosen yet."""
    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "quickstart").glob("*.md")} <= set(RUN)
