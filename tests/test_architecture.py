"""ARCHITECTURE.md says what is in `cdc/`, all of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_the_listing() -> None:
    """A reader who looks for the right place finds it there."""
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "cdc").iterdir()}
    assert sorted(named) == sorted(there - {"__init__.py", "__pycache__/", "py.typed"})
