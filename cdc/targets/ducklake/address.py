"""What `ducklake:CATALOG?data=PATH` means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import UsageError

_HOW = (
    "Write it as ducklake:FILE, ducklake:sqlite:FILE or ducklake:postgresql://user@host/database, with ?data=PATH for "
    "the rows: a folder, or s3://bucket/path."
)
_SETTINGS = {"data", "keep"}
_PASSWORD = re.compile(r"(?<=://)([^:/@?]*):[^@/?]*(?=@)")


@dataclass(frozen=True, slots=True)
class Lake:
    """Where a lake is.

    Attributes:
        address: as a command has it, without a password.
        file: of its catalogue; None if a PostgreSQL server has it.
        is_sqlite: that file is one of SQLite, not of DuckDB.
        server: how to connect to the PostgreSQL server, as libpq takes it; empty without one.
        data: the folder, or the address in a store of objects, of the rows; it ends with a slash.
        keep: days for which earlier states can be read.
    """

    address: str
    file: Path | None
    is_sqlite: bool
    server: str
    data: str
    keep: float

    def __str__(self) -> str:
        return self.address

    @property
    def catalogue(self) -> str:
        """As DuckLake names it."""
        if self.file is None:
            return f"postgres:{self.server}"
        return f"{'sqlite:' if self.is_sqlite else ''}{self.file.absolute()}"

    @property
    def is_duckdb(self) -> bool:
        """Whether the catalogue is a DuckDB file."""
        return self.file is not None and not self.is_sqlite

    @property
    def spill(self) -> str:
        """The folder for what does not fit into memory: beside the catalogue, or the rows, if they are here."""
        if self.file is not None:
            return f"{self.file.absolute()}.tmp"
        return f"{self.data.rstrip('/')}.tmp" if self.has_local_data else str(Path(gettempdir(), "cdc-lake"))

    @property
    def has_local_data(self) -> bool:
        return "://" not in self.data


def parse(place: str) -> Lake:
    """The lake of a target's address, without `ducklake:`; raises UsageError."""
    catalogue, _, query = place.partition("?")
    address = "ducklake:" + _PASSWORD.sub(r"\1", place)
    settings = dict(parse_qsl(query, keep_blank_values=True))
    given = {name: settings.pop(name) for name in list(settings) if name in _SETTINGS}
    keep = _days(given.get("keep", "1"))
    if catalogue.startswith(("postgresql://", "postgres://")):
        if not given.get("data"):
            raise UsageError("The lake's address does not say where its rows go.", hint=_HOW)
        dsn = f"{catalogue}?{urlencode(settings)}" if settings else catalogue
        try:
            server = make_conninfo("", **conninfo_to_dict(dsn))
        except psycopg.ProgrammingError:
            raise UsageError("The lake's catalogue is not the address of a PostgreSQL database.", hint=_HOW) from None
        return Lake(address, None, is_sqlite=False, server=server, data=_folder(given["data"]), keep=keep)
    if settings:
        raise UsageError(f"A lake has no setting {min(settings)!r}.", hint="It has data and keep.")
    is_sqlite = catalogue.startswith("sqlite:")
    path = catalogue.removeprefix("sqlite:")
    if not path or "://" in path:
        raise UsageError("The lake names no catalogue.", hint=_HOW)
    file = Path(path)
    return Lake(address, file, is_sqlite, "", _folder(given.get("data") or f"{file.absolute()}.files"), keep)


def _folder(data: str) -> str:
    if "://" in data and not data.startswith("s3://"):
        raise UsageError(f"The rows of a lake cannot be at {data.partition('://')[0]}://.", hint=_HOW)
    where = data if "://" in data else str(Path(data).absolute())
    return where.rstrip("/") + "/"


def _days(text: str) -> float:
    try:
        days = float(text.removesuffix("d"))
    except ValueError:
        days = -1.0
    if not 0 <= days < 100_000:
        raise UsageError(f"keep={text} is not a number of days.", hint="Write it as keep=7.")
    return days


def lake_path(lake: Lake) -> Path:
    """What messages call a lake, where they would call a file."""
    return lake.file if lake.file is not None else Path(str(lake))
