"""Files that other users of the machine could point elsewhere, and names that a loss of power would take."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from cdc.cli.view import StatusFile
from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.errors import UsageError
from cdc.jobs.control import socket_path
from cdc.journal.folder import Durable, Folder, replace_file
from cdc.model.segment import Reset, Segment
from cdc.options import Options
from cdc.runs import serve_jobs
from cdc.targets.jsonl.files import Files
from cdc.testing import MemoryTarget
from cdc.whereabouts import status_file
from tests.targets.test_duckdb_target import MEMORY, SCHEMA, DuckDbTarget, Transactions, at


def begin_lines(path: Path) -> None:
    files = Files(path, 100)
    files.open("json")
    files.close()


def written(file: Path) -> None:
    StatusFile(file, "shop", file.with_suffix(".sock")).write(PipelineView(failure="x"))


WRITERS: dict[str, Callable[[Path], object]] = {
    "x.duckdb.cdc.json": lambda folder: written(folder / "x.duckdb.cdc.json"),
    "x.jsonl.checkpoint": lambda folder: begin_lines(folder / "x.jsonl"),
    "durable.json": lambda folder: Folder(folder).write_durable(Durable(0, 0, 0)),
    "manifest.json": lambda folder: replace_file(folder / "manifest.json", b"{}"),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_link_in_the_way_is_not_written_through(name: str, tmp_path: Path) -> None:
    """O21: what somebody has put under the name of the next version of a file is removed, not followed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for make in (lambda new: new.symlink_to(victim), lambda new: new.hardlink_to(victim), lambda new: new.touch()):
        make(tmp_path / f"{name}.new")
        WRITERS[name](tmp_path)
        assert victim.read_text() == "mine"
        assert not (tmp_path / name).is_symlink()
        assert orjson.loads((tmp_path / name).read_bytes()) is not None
        (tmp_path / name).unlink()


def test_the_status_file_is_for_its_user(tmp_path: Path) -> None:
    """O21, E-03: nobody else reads the names of tables and what failed."""
    file = tmp_path / "x.duckdb.cdc.json"
    written(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert orjson.loads(file.read_bytes())["failure"] == "x"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Where a folder for sockets is looked for, in that order, without the folders."""
    bases = [tmp_path / "run", tmp_path / "tmp", tmp_path / "home"]
    for base in bases:
        base.mkdir()
    monkeypatch.setattr("cdc.jobs.control._LONGEST_FOLDER", 4096)  # those of tests may be longer than a socket's can be
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bases[0]))
    monkeypatch.setattr("tempfile.tempdir", str(bases[1]))
    monkeypatch.setenv("HOME", str(bases[2]))
    name = f"cdc-{os.getuid()}"
    return bases[0] / name, bases[1] / name, bases[2] / ".cdc"


def taken_by_a_link(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def taken_by_a_link_to_a_folder(place: Path) -> None:
    (place.parent / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(place.parent / "elsewhere")


def taken_and_open(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def taken_by_a_file(place: Path) -> None:
    place.touch()


def under_a_folder_of_all(place: Path) -> None:
    place.parent.chmod(0o777)


def gone(place: Path) -> None:
    place.parent.rmdir()


TAKEN = [taken_by_a_link, taken_by_a_link_to_a_folder, taken_and_open, taken_by_a_file, under_a_folder_of_all, gone]


@pytest.mark.parametrize("take", TAKEN)
def test_nobody_takes_the_place_of_a_socket(take: Callable[[Path], None], places: tuple[Path, Path, Path]) -> None:
    """O20: a place that is not this user's alone is passed over; in the end there is one where nobody else writes."""
    for number, place in enumerate(places):
        folder = socket_path("x").parent
        assert folder == place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.rmdir()
        take(place)
        if number == 2:
            with pytest.raises(UsageError, match="only this user may enter") as caught:
                socket_path("x")
            assert "XDG_RUNTIME_DIR" in (caught.value.hint or "")


def test_somebody_elses_folder(places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """O20: one that another user has made first, with rights as if it were ours."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    _, taken, home = places
    taken.mkdir(mode=0o700)
    real = Path.lstat
    of_another = os.stat_result([*real(taken)[:4], os.getuid() + 1, *real(taken)[5:]])
    monkeypatch.setattr(Path, "lstat", lambda path: of_another if path == taken else real(path))
    assert socket_path("x").parent == home


def test_a_place_for_the_socket_is_found_before_anything_is_made(
    places: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """O20: not after a slot was made, and with an error that says what to do."""
    for place in places:
        place.touch()
    opened: list[str] = []
    pipeline = Pipeline(lambda: opened.append("source"), MemoryTarget, queue_bytes=1)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="only this user may enter"):
        serve_jobs(pipeline, "postgresql://h/d", f"duckdb:{tmp_path}/x.duckdb", Options())
    with pytest.raises(UsageError, match="only this user may enter"):
        status_file("kafka://h:9092", "cdc")
    assert opened == []


def test_the_names_of_new_files_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O23, D-11: of the DuckDB file, and of its WAL each time that there is another one; not at every commit."""
    synced: list[set[str]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            synced.append({file.name for file in tmp_path.iterdir()})

    monkeypatch.setattr(os, "fsync", fsync)
    target = DuckDbTarget(tmp_path / "t.duckdb", MEMORY)
    target.open()
    target.apply(Segment([Reset(SCHEMA)], Transactions.none(), at(10)))
    assert synced == [{"t.duckdb", "t.duckdb.wal"}]
    target.apply(Segment([], Transactions.none(), at(20)))
    assert len(synced) == 1
    target._file.connection.execute("CHECKPOINT")
    assert not (tmp_path / "t.duckdb.wal").exists() or (tmp_path / "t.duckdb.wal").stat().st_size == 0
    target.apply(Segment([], Transactions.none(), at(30)))
    assert len(synced) == 2
    target.close()
