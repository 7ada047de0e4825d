"""Another DuckDB than the one that is installed, in a folder of its own, which is made once for all checkouts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cdc.demo.private import cache_folder
from integration import processes

_REQUIREMENTS = Path(__file__).parent.parent / "requirements"


@dataclass(frozen=True)
class OtherDuckDb:
    """A folder with a DuckDB, and a home in which that finds its extensions."""

    version: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which a Python finds it before the one that is installed."""
        paths = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        return os.environ | {"PYTHONPATH": paths, "HOME": str(self.folder / "home")}

    def cdc(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`cdc` with it."""
        command = [*processes.COMMAND, *arguments]
        return subprocess.run(command, env=self.environment | environment, capture_output=True, text=True, check=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, in the background."""
        return self.python_in_background("-m", "cdc", *arguments)

    def python(self, *arguments: str) -> str:
        """What a Python program says with it."""
        command = (sys.executable, *arguments)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python_in_background(self, *arguments: str) -> subprocess.Popen[str]:
        """A Python program with it."""
        command = (sys.executable, *arguments)
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def installed(requirements: str) -> OtherDuckDb:
    """The one that a file of requirements pins, with the extensions that it names."""
    pinned = _REQUIREMENTS / requirements
    (version,) = re.findall(r"^duckdb==(\S+)", pinned.read_text(), re.MULTILINE)
    folder = cache_folder() / f"{pinned.stem}-{version}-{sys.implementation.cache_tag}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(new))
        subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(pinned)], check=True)
        for extension in new.glob("duckdb_extension_*/extensions/*/*.duckdb_extension"):
            place = new / "home" / ".duckdb" / "extensions" / extension.parent.name / _platform(new)
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(extension, place)
        with suppress(OSError):  # somebody else was faster
            os.rename(new, folder)
        shutil.rmtree(new, ignore_errors=True)
    return OtherDuckDb(version, folder)


def _platform(folder: Path) -> str:
    """What DuckDB calls this machine."""
    ask = "import duckdb; print(duckdb.sql('PRAGMA platform').fetchone()[0])"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = (sys.executable, "-c", ask)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
