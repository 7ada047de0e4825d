"""A private ClickHouse: its engine (chdb) in a process of its own, behind HTTP (`integration.clickhouse_front`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from clickhouse_connect import get_client

from cdc.demo.private import cache_folder

_REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "clickhouse.txt"


def engine() -> Path:
    """A folder with chdb, which is made once for all checkouts."""
    (version,) = re.findall(r"^chdb==(\S+)", _REQUIREMENTS.read_text(), re.MULTILINE)
    folder = cache_folder() / f"chdb-{version}-{sys.implementation.cache_tag}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(new))
        subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(_REQUIREMENTS)], check=True)
        with suppress(OSError):  # somebody else was faster
            os.rename(new, folder)
        shutil.rmtree(new, ignore_errors=True)
    return folder


class PrivateClickHouse:
    """A server for as long as the block lasts."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-clickhouse-"))
        self._process: subprocess.Popen[str]
        self.port = 0

    def __enter__(self) -> PrivateClickHouse:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, with what it had."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.clickhouse_front", str(self.folder / "data"), str(self.port)],
            env=os.environ | {"PYTHONPATH": str(engine())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def process(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """End it with no notice."""
        self._process.kill()
        self._process.wait()

    def fail(self, rate: int) -> None:
        """Let so many of a thousand inserts fail from now on, in one of several ways."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/fail?rate={rate}") as answer:
            assert answer.status == 200

    def statements(self) -> list[tuple[str, dict[str, str]]]:
        """What was sent since the last call, with the settings of each."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/statements") as answer:
            return [(statement, settings) for statement, settings in json.load(answer)]

    def dsn(self, prefix: str, cluster: str = "") -> str:
        """A target of its own."""
        on_cluster = f"&cluster={cluster}" if cluster else ""
        return f"clickhouse://127.0.0.1:{self.port}/?prefix={prefix}_{on_cluster}"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query answers, moments without their zone, which is UTC."""
        client = get_client(host="127.0.0.1", port=self.port, autogenerate_session_id=False)
        try:
            return [tuple(map(_plain, row)) for row in client.query(query).result_rows]
        finally:
            client.close()


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
