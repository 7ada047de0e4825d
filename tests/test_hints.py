"""What a message tells somebody to run is a whole command, and no message has a password."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cdc
from cdc.connectors import refuse_options, target_module
from cdc.engine.fanout import FanOut
from cdc.engine.pipeline import Pipeline
from cdc.errors import InvariantError, UsageError
from cdc.options import Options
from cdc.runs import back_up, open_pipeline, query
from cdc.target import QueryWishes
from cdc.testing import MemoryTarget, ScriptedSource
from cdc.whereabouts import refuse_other

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


SECRET = "clickhouse://user:secret@127.0.0.1:1/shop?a=secret"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: target_module(SECRET.replace("click", "clock")),
        lambda: open_pipeline("journal:/j", SECRET, Options("shop", publish=Path("copy.duckdb"))),
        lambda: refuse_options([SECRET], Options("shop", rotate_bytes=1)),
        lambda: refuse_other(SECRET, "shop", "sales"),
        lambda: back_up(SECRET, Path("copy.duckdb")),
        lambda: query(SECRET, QueryWishes("SELECT 1", 1, 1.0)),
    ],
)
def test_no_message_has_the_password_of_a_target(wrong: Callable[[], object]) -> None:
    """E-03: targets may be addresses of servers as well."""
    with pytest.raises(UsageError) as refused:
        wrong()
    assert "secret" not in f"{refused.value.message} {refused.value.hint}"
    assert "127.0.0.1:1" in refused.value.message


def test_no_line_of_a_feed_has_the_password_of_its_target(caplog: pytest.LogCaptureFixture) -> None:
    """E-03: neither its text nor the name of its thread, which lines of JSON have."""

    def refused(_: bool) -> Pipeline:
        raise InvariantError("It is unfit.")

    writer = Pipeline(lambda: ScriptedSource([]), MemoryTarget, queue_bytes=1, until_caught_up=True)
    with caplog.at_level("INFO", "cdc"), pytest.raises(InvariantError):
        FanOut(writer, {SECRET: refused}, until_caught_up=True).run(lambda _: None)
    said = [f"{record.threadName} {record.getMessage()}" for record in caplog.records]
    assert any("feed clickhouse://127.0.0.1:1/shop clickhouse://127.0.0.1:1/shop is not fed" in line for line in said)
    assert not any("secret" in line for line in said)
