"""`cdc teardown` takes what belongs together, and nothing that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Database, MySqlDatabase, make_database, make_replica
from integration.processes import cdc


@pytest.fixture
def made(database: Database, tmp_path: Path) -> tuple[str, Callable[[str], str]]:
    """Pipelines from one database into a.duckdb and b.duckdb, which are named after them, and their files."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    def target(name: str) -> str:
        return f"duckdb:{tmp_path}/{name}.duckdb"

    for name in ("a", "b"):
        assert cdc("run", database.dsn, target(name), "--until-caught-up").returncode == 0
    return database.dsn, target


def goes_on(source: str, target: str) -> bool:
    """Whether the pipeline of a target does."""
    return cdc("run", source, target, "--until-caught-up").returncode == 0


def test_the_file_of_another_pipeline(made: tuple[str, Callable[[str], str]], database: Database) -> None:
    """O44: `--name a` with b's file, and files that no pipeline writes: refused, and nothing is gone."""
    source, target = made
    done = cdc("teardown", source, target("b"), "--name", "a", "--yes")
    assert done.returncode == 2
    assert "belongs to the pipeline 'b', not to 'a'" in done.stderr
    done = cdc("teardown", source, target("mistyped"), "--name", "a", "--yes")
    assert done.returncode == 2
    assert "is not the target of a pipeline" in done.stderr
    done = cdc("teardown", source, "--yes")
    assert done.returncode == 2
    assert "No pipeline is named" in done.stderr
    assert goes_on(source, target("a"))
    assert goes_on(source, target("b"))


def test_another_source(made: tuple[str, Callable[[str], str]], database: Database) -> None:
    """O44: a database that the target does not follow, and one in which its name is another pipeline's by now."""
    source, target = made
    for other in make_database(database.server):
        done = cdc("teardown", other.dsn, target("a"), "--yes")
        assert done.returncode == 2
        assert "does not follow" in done.stderr
    assert goes_on(source, target("a"))
    path = Path(target("a").removeprefix("duckdb:"))
    old = path.with_name("old.duckdb")
    path.rename(old)
    assert cdc("teardown", source, "--name", "a", "--yes").returncode == 0
    assert goes_on(source, target("a"))  # a new one, of the same name
    done = cdc("teardown", source, f"duckdb:{old}", "--yes")
    assert done.returncode == 2
    assert "belongs to another target" in done.stderr
    assert goes_on(source, target("a"))


def test_it_shows_what_it_would_remove_and_asks(made: tuple[str, Callable[[str], str]], database: Database) -> None:
    """O44: without `--yes` nothing is removed unless somebody agrees; nobody does in a script."""
    source, target = made
    done = cdc("teardown", source, target("a"))
    assert done.returncode == 1
    shown = [line for line in done.stdout.splitlines() if line.startswith("to be removed: ")]
    assert [line.split(": ")[1].split(" ")[0] for line in shown] == ["schema", "replication", "publication", "status"]
    assert "Remove this?" in done.stderr
    assert goes_on(source, target("a"))
    done = cdc("teardown", source, target("a"), "--yes")
    assert done.returncode == 0
    assert [line.replace("to be removed: ", "removed ") for line in shown] == done.stdout.splitlines()
    query = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    assert database.execute(query) == [("cdc_b",)]


def test_another_server(my: MySqlDatabase, postgres: object, tmp_path: Path) -> None:
    """O44: where nothing is made on the source as well."""
    my.execute("CREATE TABLE t (id int PRIMARY KEY)")
    replica = make_replica(my, tmp_path)
    replica.catch_up()
    for source in make_database(postgres):  # type: ignore[arg-type]
        done = cdc("teardown", source.dsn, replica.target, "--yes")
        assert done.returncode != 0, done.stdout
    replica.catch_up()
    assert cdc("teardown", my.dsn, replica.target, "--yes").returncode == 0
