"""Pipelines of a file of settings, with real servers: several in one process, and the plan of what they would do."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import orjson
import pytest

from cdc.errors import EXIT_DONE, EXIT_OPERATOR, EXIT_USAGE
from integration.conftest import Database, MySqlDatabase
from integration.processes import COMMAND, Process, cdc, start


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, what text)")
    database.execute("INSERT INTO orders SELECT n, 'order' FROM generate_series(1, 100) n")
    database.execute("CREATE TABLE notes (what text)")
    database.execute("CREATE TABLE clients (id int PRIMARY KEY)")
    database.execute("ANALYZE")
    return database


@pytest.fixture
def billing(on_mariadb: MySqlDatabase) -> MySqlDatabase:
    on_mariadb.execute("CREATE TABLE bills (id int PRIMARY KEY, what text)", "INSERT INTO bills VALUES (1, 'a')")
    return on_mariadb


@pytest.fixture
def file(shop: Database, billing: MySqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two pipelines in a folder, in which the test is."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cdc.toml"
    file.write_text(
        f"""\
[defaults]
memory = "128MB"

[pipelines.shop_{shop.name}]
source = "{shop.dsn}"
target = "duckdb:shop.duckdb"
tables = ["orders", "notes"]

[pipelines.billing]
source = "{billing.dsn}"
target = "duckdb:billing.duckdb"
"""
    )
    return file


def rows(target: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(target), read_only=True) as connection:
        return connection.execute(query).fetchall()


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def phase(target: str) -> str:
    """What the status file of a target says."""
    try:
        said = orjson.loads(Path(f"{target}.cdc.json").read_bytes())
    except OSError:
        return ""
    return str(said["phase"])


def asked(port: int, what: str) -> int:
    """With what the process answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/{what}")
    return connection.getresponse().status


def run() -> Process:
    return start("run")


def ended(process: Process) -> tuple[int, str]:
    _, error = process.communicate(timeout=60)
    return process.wait(), error


def test_the_plan_is_what_happens(file: Path, shop: Database, billing: MySqlDatabase) -> None:
    """What `cdc config check` says would be made, copied, left out and let go of, before and after a change of the
    file, and that it changes nothing itself."""
    name = f"shop_{shop.name}"
    planned = cdc("config", "check", "--json")
    assert planned.returncode == EXIT_DONE, planned.stderr
    one, two = orjson.loads(planned.stdout)["pipelines"]
    assert (one["pipeline"], one["begins"], one["problems"]) == (name, "new", [])
    assert one["makes"] == [f"replication slot cdc_{name}", f"publication cdc_{name}", "duckdb:shop.duckdb"]
    assert [(t["table"], t["action"], t["rows"]) for t in one["tables"]] == [
        ("public.notes", "leave out", None),
        ("public.orders", "copy", 100),
    ]
    assert (two["makes"], [(t["table"], t["action"]) for t in two["tables"]]) == (
        ["duckdb:billing.duckdb"],
        [(f"{billing.name}.bills", "copy")],
    )
    assert sorted(path.name for path in file.parent.iterdir()) == ["cdc.toml"]
    assert shop.execute(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = 'cdc_{name}'") == []

    done = cdc("run", "--until-caught-up")
    assert done.returncode == EXIT_DONE, done.stderr
    made = shop.execute(f"SELECT slot_name FROM pg_replication_slots WHERE slot_name = 'cdc_{name}'")
    made += shop.execute("SELECT pubname FROM pg_publication")
    assert made == [(f"cdc_{name}",), (f"cdc_{name}",)]
    assert rows(Path("shop.duckdb"), "SELECT count(*) FROM public.orders") == [(100,)]
    assert rows(Path("billing.duckdb"), f"SELECT what FROM {billing.name}.bills") == [("a",)]

    file.write_text(file.read_text().replace('"orders", "notes"', '"clients"'))
    planned = cdc("config", "check", "--json")
    assert planned.returncode == EXIT_DONE, planned.stderr
    one, two = orjson.loads(planned.stdout)["pipelines"]
    assert (one["begins"], one["makes"], two["begins"], two["makes"]) == ("goes on", [], "goes on", [])
    assert [(t["table"], t["action"]) for t in one["tables"]] == [
        ("public.clients", "copy"),
        ("public.orders", "let go"),
    ]
    assert [t["action"] for t in two["tables"]] == ["follow"]
    done = cdc("run", "--until-caught-up")
    assert done.returncode == EXIT_DONE, done.stderr
    assert shop.execute("SELECT tablename FROM pg_publication_tables") == [("clients",)]
    assert rows(Path("shop.duckdb"), "SELECT count(*) FROM public.orders") == [(100,)]

    shop.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")
    planned = cdc("config", "check")
    assert planned.returncode == EXIT_OPERATOR
    assert f"The replication slot cdc_{name} is missing." in planned.stdout
    verified = cdc("verify", "billing")
    assert verified.returncode == EXIT_DONE, verified.stderr


def test_one_fails_and_the_other_goes_on(file: Path, shop: Database, billing: MySqlDatabase) -> None:
    """One needs an operator: its status is red, and the process ends with 3 once the other has been asked to end."""
    assert cdc("run", "--until-caught-up").returncode == EXIT_DONE
    name = f"shop_{shop.name}"
    shop.execute(f"SELECT pg_drop_replication_slot('cdc_{name}')")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file.write_text(f'listen = ":{port}"\n' + file.read_text())
    with run() as process:
        until(lambda: phase("billing.duckdb") == "streaming" and phase("shop.duckdb") == "stopped")
        assert asked(port, "readyz") == 503
        assert asked(port, "livez") == 200
        billing.execute("INSERT INTO bills VALUES (2, 'b')")
        said = cdc("status", name, "--json")
        assert said.returncode != EXIT_DONE
        assert orjson.loads(said.stdout)["health"] == "red"
        until(lambda: cdc("status", "billing").returncode == EXIT_DONE)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        code, error = ended(process)
    assert code == EXIT_OPERATOR, error
    assert f"ERROR [{name}] " in error
    assert "It has ended; the others go on." in error
    assert f"Error: Pipeline {name}: " in error
    assert "INFO [billing] phase=streaming" in error
    assert rows(Path("billing.duckdb"), f"SELECT count(*) FROM {billing.name}.bills") == [(2,)]


def test_options_of_the_process(file: Path, shop: Database) -> None:
    """They stand at the top, and concern all pipelines: how lines are written, where the process answers."""
    name = f"shop_{shop.name}"
    file.write_text('log-format = "json"\nlisten = "127.0.0.1:0"\n' + file.read_text())
    done = cdc("run", "--until-caught-up")
    assert done.returncode == EXIT_DONE, done.stderr
    lines = [orjson.loads(line) for line in done.stderr.splitlines()]
    assert {line["pipeline"] for line in lines if "pipeline" in line} == {name, "billing"}
    assert any(line["message"].startswith("Listening at http://127.0.0.1:") for line in lines)
    done = cdc("run", name, "--until-caught-up", "--log-format", "text")
    assert done.returncode == EXIT_DONE, done.stderr
    assert " INFO " in done.stderr


def test_what_may_pass_is_tried_again_while_the_other_goes_on(file: Path, shop: Database) -> None:
    """A target that another process has: a supervisor would start the process again."""
    assert cdc("run", "--until-caught-up").returncode == EXIT_DONE
    shop.execute("INSERT INTO orders VALUES (101, 'late')")
    holder = duckdb.connect("shop.duckdb")
    with run() as process:
        until(lambda: phase("billing.duckdb") == "streaming")
        time.sleep(2.5)
        holder.close()
        until(lambda: phase("shop.duckdb") == "streaming")
        assert cdc("wait", f"shop_{shop.name}").returncode == EXIT_DONE
        process.send_signal(signal.SIGTERM)
        code, error = ended(process)
    assert code == EXIT_DONE, error
    assert "It begins again in 1 s." in error
    assert rows(Path("shop.duckdb"), "SELECT count(*) FROM public.orders") == [(101,)]


def test_a_kill_and_a_signal_end_both(file: Path, shop: Database, billing: MySqlDatabase) -> None:
    """After kill -9 both go on from their checkpoints; SIGTERM ends both at a commit, with 0."""
    with run() as process:
        until(lambda: phase("billing.duckdb") == phase("shop.duckdb") == "streaming")
        process.kill()
    shop.execute("INSERT INTO orders VALUES (101, 'late')")
    billing.execute("INSERT INTO bills VALUES (2, 'b')")
    Path("shop.duckdb.cdc.json").unlink()
    Path("billing.duckdb.cdc.json").unlink()
    with run() as process:
        until(lambda: phase("billing.duckdb") == phase("shop.duckdb") == "streaming")
        shop.execute("INSERT INTO orders VALUES (102, 'later')")
        billing.execute("INSERT INTO bills VALUES (3, 'c')")
        assert cdc("wait", f"shop_{shop.name}").returncode == cdc("wait", "billing").returncode == EXIT_DONE
        process.send_signal(signal.SIGTERM)
        code, error = ended(process)
    assert code == EXIT_DONE, error
    assert rows(Path("shop.duckdb"), "SELECT count(*) FROM public.orders") == [(102,)]
    assert rows(Path("billing.duckdb"), f"SELECT count(*) FROM {billing.name}.bills") == [(3,)]


def test_a_first_file(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cdc init` checks the source, and writes a file that is right, and never over one that is there."""
    monkeypatch.chdir(tmp_path)
    made = cdc("init", shop.dsn)
    assert made.returncode == EXIT_DONE, made.stderr
    assert "cdc.toml is written." in made.stdout
    assert "cdc config check" in made.stdout
    text = Path("cdc.toml").read_text()
    assert f"[pipelines.{shop.name}]" in text
    assert '#   "public.orders",\n' in text
    assert '#   "public.notes",  # left out: ' in text
    planned = cdc("config", "check", "--json")
    assert planned.returncode == EXIT_DONE, planned.stderr
    (plan,) = orjson.loads(planned.stdout)["pipelines"]
    assert (plan["pipeline"], plan["targets"]) == (shop.name, [f"duckdb:{shop.name}.duckdb"])
    again = cdc("init", shop.dsn)
    assert again.returncode == EXIT_USAGE
    assert "cdc.toml is there already" in again.stderr
    assert Path("cdc.toml").read_text() == text
    done = cdc("run", shop.name, "--until-caught-up")
    assert done.returncode == EXIT_DONE, done.stderr


def test_a_password_stays_out_of_a_first_file(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """E-03: it is a variable there, with which the file is right. Nothing that is said has it."""
    file = tmp_path / "other.toml"
    on_mariadb.execute("CREATE TABLE t (id int PRIMARY KEY)")
    password = on_mariadb.dsn.partition("@")[0].rpartition(":")[2]
    made = cdc("init", on_mariadb.dsn, f"jsonl:{tmp_path}/events", "--config", str(file))
    assert made.returncode == EXIT_DONE, made.stderr
    assert password not in file.read_text()
    assert ":${DB_PASSWORD}@" in file.read_text()
    planned = cdc("config", "check", str(file), DB_PASSWORD=password)
    assert planned.returncode == EXIT_DONE, planned.stderr
    unset = cdc("config", "check", str(file))
    assert "the variable DB_PASSWORD is not set" in unset.stderr
    for said in (made, planned, unset):
        assert password not in said.stdout + said.stderr


def test_a_plan_of_tables_without_a_key(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need a publication of their own, as the run then makes."""
    monkeypatch.chdir(tmp_path)
    ends = f'source = "{shop.dsn}"\ntarget = "duckdb:x.duckdb"\ninclude-keyless = true\n'
    Path("cdc.toml").write_text(f"[pipelines.{shop.name}]\n{ends}")
    (plan,) = orjson.loads(cdc("config", "check", "--json").stdout)["pipelines"]
    assert {table["table"]: table["action"] for table in plan["tables"]}["public.notes"] == "copy"
    assert cdc("run", "--until-caught-up").returncode == EXIT_DONE
    made = [f"publication {name}" for (name,) in shop.execute("SELECT pubname FROM pg_publication ORDER BY 1")]
    assert plan["makes"] == [f"replication slot cdc_{shop.name}", *made, "duckdb:x.duckdb"]


def test_mistakes_are_lines(tmp_path: Path) -> None:
    """As a user sees them, by the real command."""
    file = tmp_path / "wrong.toml"
    file.write_text("[pipelines.a]\nsource = 'mysql://h/d'\nmode = 'x'\nworkers = 'y'\n")
    for arguments in (("run",), ("config", "check"), ("status", "a")):
        done = subprocess.run(
            (*COMMAND, *arguments, "--config", str(file)), capture_output=True, text=True, check=False
        )
        assert done.returncode == EXIT_USAGE
        assert done.stderr.splitlines() == [
            f'Error: {file}:3: pipelines.a.mode: has to be "mirror", "history" or "soft-delete"',
            f"Error: {file}:4: pipelines.a.workers: has to be a whole number",
            f"Error: {file} has 2 mistakes.",
        ]
