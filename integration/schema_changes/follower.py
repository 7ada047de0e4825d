"""`cdc run` as a process of its own, that may stand still or be killed."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

from cdc.errors import TablesHeld
from cdc.model.selection import Selection
from cdc.model.standing import Standing
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.processes import Process, start
from integration.schema_changes.servers import Server

_WITHIN = 120.0  # seconds until it follows, or has ended


class RunEnded(Exception):
    """The process ended by itself; the text is what it said last."""


class Follower:
    """A pipeline from a server into a DuckDB file in a folder."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._log = folder / "log"
        self._process: Process | None = None
        chosen = Selection(tuple(server.selection))
        self._options = Options(name=server.name, selection=chosen, until_caught_up=True)
        self.path = folder / f"{server.name}_target.duckdb"

    def start(self) -> None:
        """Start it, and wait until it follows the log; raises RunEnded."""
        self._process = self._spawn()
        until = time.monotonic() + _WITHIN
        status = Path(f"{self.path}.cdc.json")
        while time.monotonic() < until:
            self.check()
            with suppress(OSError, ValueError):
                view = json.loads(status.read_bytes())
                if view["pid"] == self._process.pid and view["phase"] == "streaming":
                    return
            time.sleep(0.05)
        raise RunEnded(f"it does not follow the log after {_WITHIN} s: {self._said()}")

    def check(self) -> None:
        """Raises RunEnded if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            raise RunEnded(f"exit {code}: {self._said()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it politely, or by SIGKILL; raises RunEnded if it had ended or does not end as it should."""
        if self._process is None:
            return
        self.check()
        self._process.send_signal(number)
        code, self._process = self._process.wait(_WITHIN), None
        if code != (0 if number == signal.SIGTERM else -number):
            raise RunEnded(f"exit {code} after {number.name}: {self._said()}")

    def catch_up(self) -> dict[str, Standing]:
        """Have everything applied that the source has now, in this process; how each table stands. Raises RunEnded."""
        pipeline = open_pipeline(self._server.dsn, f"duckdb:{self.path}", self._options)
        try:
            pipeline.run()
        except TablesHeld:
            pass  # says once more what each table says
        except Exception as error:  # an error that is not the product's own is one more way to end
            raise RunEnded(f"{type(error).__name__}: {error}") from error
        return {str(name): Standing(table.state, table.reason) for name, table in pipeline.view().tables.items()}

    def give_up(self) -> None:
        """End it however it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _spawn(self) -> Process:
        tables = [word for pattern in self._server.selection for word in ("--tables", pattern)]
        with self._log.open("ab") as log:
            return start("run", self._server.dsn, f"duckdb:{self.path}", "--name", self._server.name, *tables, log=log)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]
