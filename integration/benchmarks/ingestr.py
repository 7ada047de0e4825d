"""ingestr into DuckDB, if somebody has it: the environment variable INGESTR says where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import duckdb

from cdc.errors import UsageError
from integration.benchmarks.contenders import IntoFolder
from integration.benchmarks.measure import Took, run

HINT = "`pip install ingestr` in an environment of its own, then INGESTR=/there/bin/ingestr."


class Ingestr(IntoFolder):
    """A contender that runs until it has caught up, as `cdc run --until-caught-up` does."""

    def __init__(self, program: str, version: str, folder: Path) -> None:
        super().__init__(version, "ingestr", folder, None)
        self._program = program

    @classmethod
    def found(cls, folder: Path) -> Self:
        """Raises UsageError if nothing says where it is, or it does not run."""
        said = os.environ.get("INGESTR")
        if not said:
            raise UsageError("INGESTR does not say where it is.", hint=HINT)
        program = shutil.which(said)
        if program is None:
            raise UsageError(f"INGESTR says {said}, which is no program.", hint=HINT)
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise UsageError(f"{program} does not run: {answer.stderr.strip()[-500:]}", hint=HINT)
        return cls(program, answer.stdout.strip().replace(" version", ""), folder)

    def _run(self) -> Took:
        server, database = self._backlog.server, self._backlog.name
        copy = self._now / "copy.duckdb"
        login = f"postgres:{server.password}@127.0.0.1:{server.port}"
        environment = {  # not in the command, which others see
            "SOURCE_URI": f"postgres+cdc://{login}/{database}?sslmode=disable&slot={self._slot}",
            "DESTINATION_URI": f"duckdb:///{copy}",
            "INGESTR_DISABLE_TELEMETRY": "true",
        }
        took = run([self._program, "ingest", "--yes", "--progress", "log"], environment)
        self._compare(copy)
        return took

    def _compare(self, copy: Path) -> None:
        """It must have done what it is measured at: rows that went are kept there, with a mark."""
        asked = "SELECT count(*), sum(price) FROM t"
        (expected,) = self._backlog.server.execute(asked, self._backlog.name)
        with duckdb.connect(str(copy), read_only=True) as connection:
            found = connection.execute(f"{asked} WHERE NOT _cdc_deleted").fetchone()
        if found != expected:
            sys.exit(f"{self.title} has {found} of {expected}")
