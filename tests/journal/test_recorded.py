"""Journals that an earlier version wrote: read, and built into the same tables each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc.options import Options
from cdc.runs import open_rebuild
from tests.journal.content import digests

RECORDED = Path(__file__).parent / "recorded"


@pytest.mark.parametrize("source", ["postgresql", "mysql", "mariadb"])
def test_an_old_journal(source: str, tmp_path: Path) -> None:
    """D-19, E-10: what was compared with the source when it was recorded comes out of it again, and again."""
    journal, wanted = RECORDED / source / "journal", json.loads((RECORDED / source / "content.json").read_text())
    assert len(wanted) == 3
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "rebuilt.duckdb"
        open_rebuild(f"journal:{journal}", f"duckdb:{path}", None, Options()).run()
        assert digests(path) == wanted
