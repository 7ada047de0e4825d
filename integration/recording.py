"""What the log said, kept when a test fails: a journal from which the failure can be shown again, without the server.

The server keeps its log while the test runs, so that nothing is written but the tables as they were at the beginning.
Only when the test has failed is the log read into the journal.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis.errors import StopTest, UnsatisfiedAssumption

from cdc.errors import CdcError
from cdc.options import Options
from cdc.runs import open_pipeline
from integration.conftest import Database, MySqlDatabase

_KEPT = Path(tempfile.gettempdir()) / "cdc-recorded"


class Recording:
    """A journal of a database, from here on.

    Args:
        folder: where it is kept.
    """

    def __init__(self, database: Database | MySqlDatabase, folder: Path = _KEPT) -> None:
        self._database = database
        folder.mkdir(exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"{database.name}-", dir=folder))
        self._catch_up()

    @contextmanager
    def closing(self, failure: BaseException | None = None) -> Iterator[None]:
        """End with what is done meanwhile: kept if that fails, or something has failed already.

        No transaction may be open any more: a table that comes is copied when those that are older have ended.
        """
        try:
            yield
        except BaseException as found:
            failure = found
            raise
        finally:
            self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        """Note in a failure how it can be shown again; without one, leave nothing behind."""
        if failure is None:
            shutil.rmtree(self.path)
            return
        try:
            self._catch_up()
        except CdcError as error:
            failure.add_note(f"What the log said was not recorded: {error}")
            return
        failure.add_note(f"Recorded: cdc rebuild journal:{self.path} duckdb:again.duckdb")

    def _catch_up(self) -> None:
        options = Options(name=f"recorded_{self._database.name}", until_caught_up=True)
        open_pipeline(self._database.dsn, f"journal:{self.path}", options).run()


def failing() -> BaseException | None:
    """What a test is about to fail with; Hypothesis also ends examples that are too long with an exception."""
    found = sys.exception()
    return None if isinstance(found, StopTest | UnsatisfiedAssumption) else found


@contextmanager
def recorded(database: Database | MySqlDatabase, folder: Path = _KEPT) -> Iterator[Recording]:
    """Keep what the log says in the meantime, if that fails."""
    recording = Recording(database, folder)
    with recording.closing():
        yield recording
