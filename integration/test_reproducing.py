"""docs/reproducing.md: its example, run as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from integration.processes import cdc

_ROOT = Path(__file__).parent.parent


def test_the_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command in turn, in one folder, from the journal that is in the repository."""
    page = (_ROOT / "docs" / "reproducing.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    commands = [part.partition("\n") for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    assert len(commands) > 5
    (tmp_path / "tests").symlink_to(_ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    for command, _, shown in commands:
        done = run(shlex.split(command))
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip() == shown.strip(), command


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """What a shell would do with them, if it found the Python that the tests run with."""
    if words[0] == "cdc":
        return cdc(*words[1:], COLUMNS="120")
    program = sys.executable if words[0] == "python" else words[0]
    return subprocess.run([program, *words[1:]], env=os.environ, capture_output=True, text=True, check=False)
