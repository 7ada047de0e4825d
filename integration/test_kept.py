"""What an earlier version left on disk is read by this one, and goes on with it: see `integration/kept.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cdc.connectors import source_module, target_module
from cdc.journal.state import JournalState
from cdc.model.selection import Selection
from cdc.model.standing import State
from cdc.options import Options
from cdc.runs import compare_tables, open_rebuild
from cdc.whereabouts import read_status
from integration.conftest import Database, MySqlDatabase
from integration.kept import DUCKDB, JOURNAL, LINES, Kept, recorded
from integration.processes import cdc
from tests.journal.content import digests

MORE = (
    "INSERT INTO t (id, v, n, w) VALUES (100, 'new', 9.99, 1)",
    "UPDATE t SET v = 'later' WHERE id = 1",
    "UPDATE t SET id = 21 WHERE id = 20",
    "DELETE FROM t WHERE id = 4",
    "INSERT INTO k VALUES (7, 'seven')",
    "DELETE FROM k WHERE a = 1",
    "ALTER TABLE t ADD COLUMN x varchar(10)",
    "UPDATE t SET x = 'x' WHERE id = 5",
    "UPDATE doubted SET v = 30 WHERE id = 2",
    "UPDATE held SET v = 11 WHERE id = 2",
    "TRUNCATE TABLE e",
    "INSERT INTO e VALUES (10)",
)
CHANGES = {"lines": 11, "debezium": 12}  # which makes two of a key that moves


@pytest.fixture(params=recorded(), ids="/".join)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    return Kept(*request.param, tmp_path)


def names(standings: dict[object, State]) -> dict[str, State]:
    return {str(table).partition(".")[2]: state for table, state in standings.items()}


def test_it_is_read(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """E-10, E-15: checkpoints, states, the options of runs, marks, tables, a history, a journal, and what a run said."""
    connector = source_module(f"{kept.source}://h/d")
    for name in (*DUCKDB, *LINES, JOURNAL):
        module, path = target_module(kept.target(name))
        checkpoint = module.read_checkpoint(path, f"kept_{name}")
        assert checkpoint is not None
        marks = {entry.state for entry in module.read_marks(path, f"kept_{name}").values()}
        assert marks == ({State.SUSPECT} if name == "mirror" else set())
        if name == "fed":
            assert JournalState.load(checkpoint.state).exclude == ()
            continue
        assert "*.other" in connector.kept_options(checkpoint.state).selection.exclude
        standings = names({table: entry.state for table, entry in connector.table_standings(checkpoint.state).items()})
        held = {"held"} if name == "mirror" else set()
        assert {table for table, found in standings.items() if found is State.HELD} == held
        assert standings.keys() >= {"t", "e", "held", "doubted"}
    for name, tables in kept.content["tables"].items():
        assert digests(kept.folder / f"{name}.duckdb") == tables
    for question in kept.content["answers"]:
        command, *arguments = question["asked"]
        done = cdc(command, kept.target("history"), *arguments)
        assert (done.stdout if done.returncode == 0 else f"{done.returncode}") == question["answer"]
    open_rebuild(kept.target(JOURNAL), f"duckdb:{kept.folder}/again.duckdb", None, Options()).run()
    assert digests(kept.folder / "again.duckdb") == kept.content["rebuilt"]
    assert cdc("journal", "verify", str(kept.folder / JOURNAL)).returncode == 0
    monkeypatch.setattr(os, "kill", lambda pid, signal: None)  # as if the process that wrote them still lived
    for name in (*DUCKDB, *LINES, JOURNAL):
        said = read_status(kept.target(name), f"kept_{name}")
        assert (said["phase"], said["pipeline"]) == ("stopped", "kept_fed" if name == JOURNAL else f"kept_{name}")


def test_a_journal_that_was_moved(kept: Kept) -> None:
    """O51: a target that is fed from it says where it was, and what to do."""
    done = cdc("status", f"{kept.source}://h/d", kept.target("fed"))
    assert done.returncode == 2
    assert "is fed from a journal in " in done.stderr
    assert "--journal DIR --to TARGET" in done.stderr


def run(kept: Kept, source: str, *, code: int = 0, name: str) -> None:
    ends = (
        (kept.target(name),) if name != "fed" else ("--journal", str(kept.folder / JOURNAL), "--to", kept.target(name))
    )
    exclude = ("--exclude", "*.other", *(("--exclude", "*.k") if name == "soft_delete" else ()))
    done = cdc("run", source, *ends, *exclude, "--until-caught-up")
    assert done.returncode == code, done.stderr


def test_it_goes_on(kept: Kept) -> None:
    """E-15: each target is followed on from its checkpoint, in the mode and the format that it has; a table that was held
    is brought back, one that was suspect is set right, and a column that has become text stays text."""
    with kept.server() as database:
        report = status(kept, database, "mirror")
        assert report["tables"][qualified(database, "held")]["state"] == "held"
        assert report["tables"][qualified(database, "doubted")]["state"] == "suspect"
        for statement in MORE:
            database.execute(statement)
        for name in ("mirror", "history", "soft_delete", "fed", *LINES):
            run(kept, database.dsn, code=1 if name == "mirror" else 0, name=name)
        assert differing(kept, database, "mirror", "*.held") == []
        resynced = cdc("resync", database.dsn, kept.target("mirror"), "--tables", "held")
        assert resynced.returncode == 0, resynced.stderr
        run(kept, database.dsn, name="mirror")
        for name in DUCKDB:
            assert differing(kept, database, name) == [], name
            report = status(kept, database, name)
            assert report["problems"] == [], name
        open_rebuild(kept.target(JOURNAL), f"duckdb:{kept.folder}/again.duckdb", None, Options()).run()
        assert differing(kept, database, "again") == []
    for name in LINES:
        lines = (kept.folder / f"{name}.jsonl").read_text().splitlines()
        added = [json.loads(line) for line in lines[kept.content["lines"][name] :]]
        assert len([line for line in added if is_change(line)]) == CHANGES[name]


def is_change(line: dict[str, object]) -> bool:
    return line.get("op") in ("c", "u", "d", "insert", "update", "delete")


def qualified(database: Database | MySqlDatabase, table: str) -> str:
    return f"{'public' if isinstance(database, Database) else database.name}.{table}"


def status(kept: Kept, database: Database | MySqlDatabase, name: str) -> dict[str, object]:
    source = f"journal:{kept.folder / JOURNAL}" if name == "fed" else database.dsn
    report: dict[str, object] = json.loads(cdc("status", source, kept.target(name), "--json").stdout)
    return report


def differing(kept: Kept, database: Database | MySqlDatabase, name: str, *without: str) -> list[str]:
    """The tables whose rows are not those of the source."""
    left_out = ("*.other", *without, *(("*.k",) if name == "soft_delete" else ()))
    found = compare_tables(database.dsn, f"duckdb:{kept.folder / name}.duckdb", Selection((), left_out))
    assert len(found) == 6 - len(left_out)
    return [comparison.table.name for comparison in found if not comparison.equal]
