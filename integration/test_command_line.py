"""The command line: one kind of size, one of duration, one name for one thing; and what is typed by mistake."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdc.cli.app import app
from cdc.cli.commands import apart, load_all
from cdc.cli.quantity import bytes_of, seconds_of
from cdc.errors import UsageError
from cdc.options import Options
from cdc.runs import open_pipeline
from cdc.whereabouts import name_of
from integration.conftest import Database, MySqlDatabase
from integration.processes import cdc, start
from tests.test_commands import COMMANDS, loaded_by

# What a run loads if it is asked for something that this one is not asked for.
_NOT_ASKED_FOR = {"pydantic", "rich", "starlette", "uvicorn", "prometheus_client", "apprise", "pymysql", "cryptography"}
_NOT_ASKED_FOR |= {"confluent_kafka", "clickhouse_connect", "sqlglot.dialects.duckdb", "cdc.tables.history"}
_NOT_ASKED_FOR |= {"cdc.jobs.backfill", "cdc.jobs.healing", "cdc.jobs.requests", "cdc.targets.duckdb.questions"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0s", 0), (" 5s ", 5), ("45", 45)]
)
def test_durations(text: str, seconds: float) -> None:
    """O38."""
    assert seconds_of("--some", text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64 << 20), ("1.5GB", 3 << 29), ("2kB", 2048), ("1 TB", 1 << 40), ("256", 256 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    """O38."""
    assert bytes_of("--some", text) == size


@pytest.mark.parametrize("text", ["", "x", "-1s", "5w", "1e3s", "MB", "64mb", "64 M", "1h30m"])
def test_what_is_neither(text: str) -> None:
    """O38: refused, with the option that it was given for and an example."""
    for read in (seconds_of, bytes_of):
        with pytest.raises(UsageError, match="--some") as refused:
            read("--some", text)
        assert "Write it as" in str(refused.value.hint)


def test_bounds() -> None:
    """O38."""
    with pytest.raises(UsageError, match="--memory 1MB is too small"):
        bytes_of("--memory", "1MB", least=64 << 20)
    with pytest.raises(UsageError, match="--segment 2GB is too large"):
        bytes_of("--segment", "2GB", most=1 << 30)


def test_a_run_loads_what_it_needs(database: Database, tmp_path: Path) -> None:
    """One that goes on with tables that are copied, and finds nothing new: neither what serves, draws, notifies or
    answers, nor what makes statements; and pandas never, not even for the first array, where it is installed."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x')")
    ends = ("run", database.dsn, f"duckdb:{tmp_path / 'x.duckdb'}", "--until-caught-up")
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas was loaded')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    loaded_by(*ends, PYTHONPATH=path)
    loaded = loaded_by(*ends, PYTHONPATH=path)
    assert not loaded & _NOT_ASKED_FOR
    assert {f"cdc.cli.{command.module}" for command in COMMANDS.values()} & loaded == {"cdc.cli.run"}
    assert cdc("query", ends[2], "SELECT count(*) FROM public.t", "--format", "csv").stdout.split() == [
        "count_star()",
        "1",
    ]


def test_numbers_without_a_unit_are_taken_with_a_warning(database: Database, tmp_path: Path) -> None:
    """O38: as the release before this one had them; what is written with a unit is taken in silence."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    ends = ("run", database.dsn, str(tmp_path / "x.duckdb"), "--until-caught-up")
    done = cdc(*ends, "--memory", "64", "--segment", "1", "--stall-timeout", "120")
    assert done.returncode == 0, done.stderr
    for wanted in ("--memory 64MB", "--segment 1MB", "--stall-timeout 120s"):
        assert f"Write {wanted}: from the next release on" in done.stderr
    done = cdc(*ends, "--memory", "64MB", "--segment", "1MB", "--stall-timeout", "2m")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    database.execute("INSERT INTO t VALUES (1)")
    for option in ("--table", "--tables"):
        done = cdc("resync", database.dsn, str(tmp_path / "x.duckdb"), option, "t")
        assert done.stdout == "public.t: copied again\n", done.stderr
        assert ("Write --tables" in done.stderr) == (option == "--table")


def test_rebuild_as_it_was_written_before(database: Database, tmp_path: Path) -> None:
    """O38: SOURCE TARGET, as everywhere; TARGET --from SOURCE with a warning."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    journal = f"journal:{tmp_path}/j"
    open_pipeline(database.dsn, journal, Options(database.name, until_caught_up=True)).run()
    done = cdc("rebuild", f"{tmp_path}/a.duckdb", "--from", journal)
    assert done.returncode == 0, done.stderr
    assert f"cdc rebuild {journal} {tmp_path}/a.duckdb" in done.stderr
    done = cdc("rebuild", journal, f"{tmp_path}/b.duckdb")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_every_option_is_spelled_in_one_way() -> None:
    """O38: sizes and durations are named as such, by every command."""
    from typer.main import get_command

    load_all()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = [option for command in commands.values() for option in command.params if option.opts[0].startswith("--")]
    kinds = {option.opts[0]: option.metavar for option in options if option.metavar in ("SIZE", "DURATION")}
    assert kinds == {
        "--memory": "SIZE",
        "--serve-memory": "SIZE",
        "--segment": "SIZE",
        "--rotate": "SIZE",
        "--journal-size": "SIZE",
        "--journal-budget": "SIZE",
        "--journal-age": "DURATION",
        "--every": "DURATION",
        "--publish-every": "DURATION",
        "--serve-timeout": "DURATION",
        "--timeout": "DURATION",
        "--verify-every": "DURATION",
        "--stall-timeout": "DURATION",
        "--max-lag": "DURATION",
        "--notify-slot": "DURATION",
    }
    said = " ".join(str(option.help) for option in options)
    assert "egabytes" not in said
    assert "Seconds without" not in said


@pytest.mark.parametrize("patterns", [[""], ["t", ""], ["t,"], [","]])
@pytest.mark.parametrize("option", ["--tables", "--exclude"])
def test_an_empty_variable_of_the_shell(option: str, patterns: list[str]) -> None:
    """O49: `--tables "$TABLES"` does not mean all tables where the variable is not set."""
    load_all()
    given = [word for pattern in patterns for word in (option, pattern)]
    for command in (
        ["run", "postgresql://h/d", "x.duckdb"],
        ["check", "postgresql://h/d"],
        ["tail", "postgresql://h/d"],
    ):
        done = CliRunner().invoke(app, [*command, *given])
        assert isinstance(done.exception, UsageError), done.exception
        assert str(done.exception) == f"{option} names no table."


def test_a_hangup_ends_a_run_in_order(database: Database, tmp_path: Path) -> None:
    """O49: as SIGTERM does, when a terminal is closed."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    running = start("run", database.dsn, str(tmp_path / "x.duckdb"))
    status = tmp_path / "x.duckdb.cdc.json"
    until = time.monotonic() + 30
    while not (status.exists() and b'"phase":"streaming"' in status.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGHUP)
    assert running.wait(20) == 0
    assert b'"phase":"stopped"' in status.read_bytes()


def test_names_of_pipelines(anywhere: Database | MySqlDatabase, tmp_path: Path) -> None:
    """O36: after the target at first; as the target has it from then on, so that those of older versions go on."""
    anywhere.execute("CREATE TABLE t (id int PRIMARY KEY)")
    old = f"duckdb:{tmp_path}/shop.duckdb"
    open_pipeline(anywhere.dsn, old, Options(until_caught_up=True)).run()  # whose name is `cdc`
    assert name_of(anywhere.dsn, old, None) == "cdc"
    assert cdc("run", anywhere.dsn, old, "--until-caught-up").returncode == 0
    new = f"jsonl:{tmp_path}/Audit of-2026.jsonl"
    assert cdc("run", anywhere.dsn, new, "--until-caught-up").returncode == 0
    assert name_of(anywhere.dsn, new, None) == "audit_of_2026"
    if isinstance(anywhere, Database):
        slots = anywhere.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        assert sorted(slots) == [("cdc_audit_of_2026",), ("cdc_cdc",)]
    for target in (old, new):
        assert cdc("status", anywhere.dsn, target).returncode == 0


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("shop.duckdb", "shop"),
        ("duckdb:/data/Big-Shop.v2.duckdb", "big_shop"),
        ("jsonl:audit.jsonl", "audit"),
        ("journal:/var/log/journal/", "journal"),
        (f"jsonl:{'x' * 60}.jsonl", "x" * 40),
        ("duckdb:.duckdb", "cdc"),
        ("jsonl:дата.jsonl", "cdc"),
        ("kafka://host:9092", "cdc"),
    ],
)
def test_names_after_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, name: str) -> None:
    """O36."""
    monkeypatch.chdir(tmp_path)
    assert name_of("postgresql://h/d", target, None) == name
    assert Options(name).name == name


def test_a_second_pipeline_and_a_target_that_is_gone(database: Database, tmp_path: Path) -> None:
    """O36: the command that the hint names works as it stands, with SOURCE in its place."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    target = tmp_path / "shop.duckdb"
    assert cdc("run", database.dsn, str(target), "--until-caught-up").returncode == 0
    target.unlink()
    done = cdc("run", database.dsn, str(target), "--until-caught-up")
    assert done.returncode == 3
    assert "`cdc teardown SOURCE --name shop`" in done.stderr
    assert cdc("teardown", database.dsn, "--name", "shop", "--yes").returncode == 0
    assert cdc("run", database.dsn, str(target), "--until-caught-up").returncode == 0


def test_a_member_who_does_not_inherit(database: Database) -> None:
    """O49: the role is a member of the owner's already; what it lacks is said."""
    user = f"member_{database.name}"
    database.execute(
        f"CREATE ROLE owner_{database.name}; CREATE ROLE {user} LOGIN REPLICATION "
        f"PASSWORD '{database.server.password}'; GRANT CREATE ON DATABASE {database.name} TO {user};"
        f"GRANT owner_{database.name} TO {user} WITH INHERIT FALSE; CREATE TABLE t (id int PRIMARY KEY);"
        f"ALTER TABLE t OWNER TO owner_{database.name}; GRANT SELECT ON t TO {user}"
    )
    source = database.dsn.replace("postgres@", f"{user}@")
    try:
        done = cdc("check", source)
        assert done.returncode == 3
        fix = f'GRANT owner_{database.name} TO "{user}" WITH INHERIT TRUE;'
        assert fix in done.stdout, done.stdout
        database.execute(fix)
        assert cdc("check", source).returncode == 0
    finally:
        database.execute(f"DROP OWNED BY {user}, owner_{database.name}; DROP ROLE {user}, owner_{database.name}")


def test_verbose_stands_where_it_likes(database: Database, tmp_path: Path) -> None:
    """O38: before the command and after it; what stands behind `--` is not looked at."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v numeric(8,2)); INSERT INTO t VALUES (1, 'NaN')")
    run = ("run", database.dsn, str(tmp_path / "x.duckdb"), "--until-caught-up")
    assert cdc(*run, "-v").returncode == 0
    assert cdc("--verbose", *run).returncode == 0
    assert cdc(*run, "--log-level=debug", "--log-format", "text").returncode == 0
    assert apart(["history", "x", "-v", "--", "-v", "--verbose"]) == (["-v"], ["history", "x", "--", "-v", "--verbose"])
