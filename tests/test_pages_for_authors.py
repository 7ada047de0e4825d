"""What the pages for authors of connectors show is what works: their examples are run as they stand there."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from cdc.cli.app import app
from cdc.cli.commands import load_all
from cdc.cli.targets import describe, markdown
from cdc.connectors import (
    HoldsTables,
    KeepsHistories,
    source_module,
    target_factory,
    target_kind,
    target_kinds,
    target_module,
)
from cdc.errors import SourceChanged, UsageError
from cdc.options import Options
from cdc.target import Mode
from cdc.testing import Fault, FaultyTarget, MemoryTarget, conformance

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    """The Python programs of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def module(name: str, *texts: str) -> ModuleType:
    made = ModuleType(name)
    exec(compile("\n".join(texts), name, "exec"), made.__dict__)
    return made


SQLITE = module("cdc_sqlite", *blocks("adding-a-target.md"))
LINES = module("cdc_lines", *blocks("adding-a-source.md"))


@pytest.mark.parametrize("check", conformance.checks(SQLITE.ABILITIES), ids=str)
def test_the_target_of_the_page(check: conformance.Check, tmp_path: Path) -> None:
    """The test of the page, with every check."""
    SQLITE.test_sqlite(check, tmp_path)


# What may go wrong in a target: the words of the page, and those that would be a defect.
DEFECTS = {
    "what it has is applied again": ("new = beyond(segment,", "new = segment or beyond(segment,"),
    "a part is seen": ("return  # the transaction goes on", 'return self.db.execute("COMMIT") and None  #'),
    "the lease is none": ("fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
    "the checkpoint comes later": (
        "        at = segment.checkpoint",
        '        self.db.executescript("COMMIT; BEGIN"); at = segment.checkpoint',
    ),
    "the newest of two rows": ("ORDER BY rowid LIMIT 1", "ORDER BY rowid DESC LIMIT 1"),
    "what was left out is NULL": ("new = old | dict(event.after)", "new = dict.fromkeys(old) | dict(event.after)"),
    "all equal rows go": ('WHERE rowid = ?", found[:1]', 'WHERE rowid >= ?", found[:1]'),
    "NULL is equal to nothing": ("IS ?", "= ?"),
    "columns by their place": ("names.get(column.identity", "dict(enumerate(names.values(), 1)).get(column.identity"),
    "nothing is filled": ("step.fill.get(column.identity)", "step.fill.get(-1)"),
    "a truncate is passed over": ("DELETE FROM {_table(step.schema)}", "SELECT 1 FROM {_table(step.schema)}"),
    "rows stay when a table is copied again": (
        "DROP TABLE {_quoted(before)}",
        "ALTER TABLE {_quoted(before)} RENAME TO x",
    ),
    "a table of somebody else is taken": ("CREATE TABLE {_table", "CREATE TABLE IF NOT EXISTS {_table"),
    "a row that is not there": ("            raise error\n        self.db", "            return {}\n        self.db"),
    "it says nothing of the table": (
        "error.concerns = schema.identity\n            raise error from",
        "raise error from",
    ),
    "a name is not quoted": ("name.replace('\"', '\"\"')", "name"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_suite_finds_what_may_go_wrong(defect: str, tmp_path: Path) -> None:
    """A suite that every target passes says nothing, unless it fails for those that are not right."""
    right, wrong = DEFECTS[defect]
    target, test = blocks("adding-a-target.md")
    assert target.count(right) >= 1, right
    broken = module("cdc_broken", target.replace(right, wrong), test)
    found = []
    for number, check in enumerate(conformance.checks(SQLITE.ABILITIES)):
        (folder := tmp_path / str(number)).mkdir()
        try:
            broken.test_sqlite(check, folder)
        except Exception:
            found.append(str(check))
    assert 0 < len(found) < number, found  # no more than the defect concerns


def rows(target: MemoryTarget) -> list[tuple[str | None, ...]]:
    return [tuple(row.values()) for row in target.rows("lines.items")]


def test_the_source_of_the_page(tmp_path: Path) -> None:
    """It begins, goes on after each checkpoint, and gets there through failures of the target."""
    path, target = tmp_path / "lines", MemoryTarget()
    path.write_text("")
    follow: Callable[[Path, Any], None] = LINES.follow
    follow(path, target)
    assert rows(target) == []
    said = [["insert", "1", "a"], ["insert", "2", "b"], ["update", "1", "c"], ["delete", "2"], ["insert", "3", "d"]]
    for line in said:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        follow(path, target)
    assert rows(target) == [("1", "c"), ("3", "d")]
    assert target.checkpoint is not None
    assert target.checkpoint.position.text == "line 5"
    again = MemoryTarget()
    faults = iter([None, Fault.FAIL_AFTER_WRITE, Fault.REJECT, Fault.REPEAT])
    follow(path, FaultyTarget(again, faults))
    assert rows(again) == rows(target)
    assert len(again.changes) == len(said)
    path.write_text(json.dumps(said[0]) + "\n")
    with pytest.raises(SourceChanged):
        follow(path, target)


Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Leaves a package of somebody else where an installer would: its module, what that has, and its entry point."""
    names = []

    def leave(name: str, text: str, entry: str) -> None:
        names.append(name)
        (tmp_path / f"{name}.py").write_text(text)
        described = tmp_path / f"{name}-1.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (described / "entry_points.txt").write_text(entry)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    yield leave
    for name in names:
        sys.modules.pop(name, None)


def test_a_target_of_somebody_else_is_known(install: Install, tmp_path: Path) -> None:
    install("cdc_sqlite", blocks("adding-a-target.md")[0], "[cdc.targets]\nsqlite = cdc_sqlite\n")
    kind, place = target_module("sqlite:shop.sqlite")
    assert (kind.ABILITIES.product, place) == ("SQLite", "shop.sqlite")
    with pytest.raises(UsageError, match="SQLite as a target cannot keep tables as --mode history"):
        kind.target_factory(place, SQLITE.TargetSettings("x", "postgresql", 0, mode=Mode.HISTORY))
    make = target_factory("postgresql://h/shop", f"sqlite:{tmp_path / 'a.sqlite'}", Options("a"))
    assert make().open() is None
    assert "SQLite" in [found.product for found in describe()]


_KIND = """
def tail_factory(dsn, **options):
    return lambda: LinesSource(Path(dsn.removeprefix("lines://")))


def database_of(dsn):
    return ""


def _no(*arguments, **options):
    raise NotImplementedError


source_factory = source_status = table_standings = table_names = source_removals = check_source = _no
make_observer = digest_tables = pipeline_of = kept_options = _no
"""


def test_a_source_of_somebody_else_is_known(install: Install, tmp_path: Path) -> None:
    install("cdc_lines", blocks("adding-a-source.md")[0] + _KIND, "[cdc.sources]\nlines = cdc_lines\n")
    (tmp_path / "said").write_text('["insert", "1", "a"]\n["delete", "1"]\n')
    command = [sys.executable, "-m", "cdc", "tail", f"lines://{tmp_path / 'said'}", "--until-caught-up"]
    said = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    assert said.returncode == 0, said.stderr
    assert [orjson.loads(line)["op"] for line in said.stdout.splitlines()][-2:] == ["insert", "delete"]


def test_a_package_that_lacks_something_is_refused(install: Install) -> None:
    """What is missing is not found out while rows are moved."""
    install("cdc_lines", _KIND.replace("kept_options = ", ""), "[cdc.sources]\nlines = cdc_lines\n")
    with pytest.raises(UsageError, match="does not offer everything that a source needs"):
        source_module("lines:///said")
    install("cdc_rows", "ABILITIES = None", "[cdc.targets]\nrows = cdc_rows\n")
    with pytest.raises(UsageError, match="does not offer everything that a target needs"):
        target_module("rows:place")


def test_what_is_not_known_is_still_refused() -> None:
    with pytest.raises(UsageError, match="is not a target that cdc knows"):
        target_module("sqlite:shop.sqlite")
    with pytest.raises(UsageError, match="'lines' is not a source that cdc knows"):
        source_module("lines:///said")


# --- what `cdc targets` and its page say ------------------------------------------------------------------------------


def test_the_page_of_targets_is_generated() -> None:
    """`cdc targets --markdown` made the tables of docs/targets.md; nobody has to remember to change them."""
    assert markdown(describe()) in (DOCS / "targets.md").read_text()


def test_a_kind_says_of_itself_what_the_product_finds() -> None:
    for name in target_kinds():
        kind = target_kind(name)
        assert kind.ABILITIES.compares == isinstance(kind, HoldsTables), name
        assert (Mode.HISTORY in kind.ABILITIES.modes) == isinstance(kind, KeepsHistories), name
        assert ("--mode" in kind.ABILITIES.options) == bool(kind.ABILITIES.modes), name
        assert set(kind.ABILITIES.keyless) <= set(kind.ABILITIES.modes), name


def test_the_command() -> None:
    load_all()
    said = CliRunner().invoke(app, ["targets", "--json"])
    assert said.exit_code == 0, said.output
    found = {kind["product"]: kind for kind in orjson.loads(said.stdout)}
    assert found["ClickHouse"]["modes"] == ["mirror", "history", "soft-delete"]
    assert found["Kafka"]["modes"] == []
    assert "decimal without bounds" in found["DuckDB"]["text"]
    assert found["Kafka"]["types"] == {}
    said = CliRunner().invoke(app, ["targets"])
    assert "DuckLake" in said.output
