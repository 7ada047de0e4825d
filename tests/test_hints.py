"""What a message tells somebody to run is a whole command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cdc

_ADVICE = re.compile(r"`?cdc (teardown|check|resync|status|verify|repair|rebuild)\b(?! --json)([^`.]*)")
# What it needs at least.
_NEEDS = {"check": "SOURCE", "teardown": "SOURCE", "status": "SOURCE TARGET", "resync": "SOURCE TARGET --tables"}
_NEEDS |= {"verify": "SOURCE TARGET", "repair": "SOURCE TARGET", "rebuild": "{source} TARGET"}


def hints() -> Iterator[tuple[str, str]]:
    """The hints of all errors, with their places."""
    for path in Path(cdc.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                yield f"{path.name}:{node.value.lineno}", ast.unparse(node.value)


def test_hints_name_whole_commands() -> None:
    """O36: with all that the command needs; `cdc teardown --name cdc` fails, since it lacks SOURCE."""
    found = [(place, command, rest) for place, text in hints() for command, rest in _ADVICE.findall(text)]
    assert len(found) > 20
    assert [
        (place, command, rest) for place, command, rest in found if not rest.startswith(f" {_NEEDS[command]}")
    ] == []
