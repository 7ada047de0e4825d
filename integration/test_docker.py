"""What `docker/` has, as far as it can be run without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pytest
import yaml

from integration.conftest import Database, MySqlDatabase
from integration.processes import COMMAND, Process, cdc, start

DOCKER = Path(__file__).parent.parent / "docker"


def health_checks() -> dict[str, list[str]]:
    """The command of each health check of cdc, by the path that it asks for."""
    written = re.search(r"CMD (\[.*\])", (DOCKER / "Dockerfile").read_text())
    assert written is not None
    image: list[str] = json.loads(written[1])
    _, *compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["cdc"]["healthcheck"]["test"]
    return {"/livez": image, "/readyz": compose}


@pytest.mark.parametrize("path", list(health_checks()))
def test_the_health_checks(path: str) -> None:
    """The image's is red when a stage hangs, that of compose also when somebody has to help (O47); a proxy that the
    environment names is not asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) > 1 else 200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _, *arguments = health_checks()[path]
        command = [sys.executable, *(text.replace("9464", str(server.server_port)) for text in arguments)]
        environment = {"http_proxy": "http://127.0.0.1:1"}
        assert [subprocess.run(command, env=environment, check=False).returncode for _ in range(2)] == [0, 1]
        server.shutdown()
    assert asked == [path, path]
    refused = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert refused.returncode == 1


def test_a_signal_reaches_the_first_process(database: Database, tmp_path: Path) -> None:
    """O47, D-18: `docker stop` ends a run in order where nothing stands above it, as in the image: the kernel keeps from a
    first process the signals that it has no handler for."""
    if os.geteuid() != 0:
        pytest.skip("Only root makes a first process.")
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    target = tmp_path / "shop.duckdb"
    command = ["unshare", "--pid", "--fork", "--kill-child", *COMMAND, "run", database.dsn, str(target)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as above:
        try:
            status = target.with_name(target.name + ".cdc.json")
            wait_for(lambda: status.exists() and b'"phase":"streaming"' in status.read_bytes())
            assert json.loads(status.read_bytes())["pid"] == 1
            (first,) = Path(f"/proc/{above.pid}/task/{above.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert above.wait(30) == 0
        finally:
            above.kill()
    with duckdb.connect(target, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM public.t").fetchone() == (0,)


def test_what_the_image_is_built_of(tmp_path: Path) -> None:
    """O52: the files that .dockerignore lets through are enough to build the package, without a network."""
    root = DOCKER.parent
    let_through = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in let_through:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", tmp_path / "dist", tmp_path], check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with ZipFile(wheel) as packed:
        assert {"cdc/py.typed", "cdc/cli/systemd.py"} <= set(packed.namelist())


def test_the_role_of_compose(database: Database, tmp_path: Path) -> None:
    """O47: a run by a role of its own, no superuser, which waits until the application has made its tables."""
    psql = database.server.binaries
    environment = {
        "PATH": f"{psql}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database.server.port),
        "PGPASSWORD": database.server.password,
        "POSTGRES_DB": database.name,
        "CDC_PASSWORD": "it's",
    }
    subprocess.run([DOCKER / "role.sh"], env=environment, check=True)
    target = tmp_path / "shop.duckdb"
    try:
        assert database.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'cdc'") == [(False,)]
        running = start(
            "run", database.dsn.replace("postgres@", "cdc@"), str(target), "--wait-for-tables", PGPASSWORD="it's"
        )
        follows(running, target, lambda: database.execute("SET ROLE owner; CREATE TABLE t (id int PRIMARY KEY)"))
    finally:
        database.execute("DROP OWNED BY cdc, owner CASCADE; DROP ROLE cdc, owner")


def test_waiting_for_tables_of_a_pattern(my: MySqlDatabase, tmp_path: Path) -> None:
    """O47: where there are others already; without the option it is refused at once."""
    my.execute("CREATE TABLE other (id int PRIMARY KEY)")
    target = tmp_path / "shop.duckdb"
    command = ("run", my.dsn, str(target), "--tables", "t")
    assert cdc(*command).returncode == 2
    running = start(*command, "--wait-for-tables")
    follows(running, target, lambda: my.execute("CREATE TABLE t (id int PRIMARY KEY)"))


def follows(running: Process, target: Path, make: Callable[[], object]) -> None:
    """A run waits, follows once there are tables, and ends in order."""
    status = target.with_name(target.name + ".cdc.json")
    try:
        wait_for(lambda: status.exists() and b'"phase":"waiting"' in status.read_bytes())
        make()
        wait_for(lambda: b'"phase":"streaming"' in status.read_bytes())
    finally:
        running.terminate()
        assert running.wait(20) == 0


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
