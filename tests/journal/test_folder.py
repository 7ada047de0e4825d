"""Journals on a disk: torn ends, damage, missing files, retention, budgets; and what readers see of all that."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cdc.cli.journal
import cdc.cli.rebuild
import cdc.cli.run
import cdc.cli.tail  # noqa: F401
from cdc import faults
from cdc.cli.app import app
from cdc.engine.handoff import Handoff
from cdc.errors import JournalDamaged, OperatorNeeded, SourceChanged, TargetBusy, UsageError
from cdc.journal.folder import Folder
from cdc.journal.inspect import bytes_from, list_files, sizes, verify_files
from cdc.journal.reader import Reader
from cdc.journal.retention import JournalFull, ReaderEntry, read_readers, seconds_left, write_reader
from cdc.journal.source import JournalSource
from cdc.journal.target import JournalTarget
from cdc.journal.writer import Writer
from cdc.model.change import Op
from cdc.model.position import Checkpoint
from cdc.model.segment import Changes, Reset, Segment
from cdc.model.selection import Selection
from cdc.sources.postgres.position import write_lsn
from cdc.target import KEEP_ALL, Retention, TargetSettings
from tests.journal.segments import natives, said, segments
from tests.model.batches import UNCHANGED, batch, table
from tests.seeds import SEED

SMALL_FILE = 8_000  # bytes


def target(folder: Path, retention: Retention = KEEP_ALL) -> JournalTarget:
    return JournalTarget(Folder(folder), TargetSettings("cdc", "postgresql", 0, retention=retention), SMALL_FILE)


def write(folder: Path, given: list[Segment]) -> None:
    writer = Writer(Folder(folder), "cdc", "postgresql", file_bytes=SMALL_FILE).open()
    for segment in given:
        writer.append(segment)
    writer.close()


def go_on(folder: Path, given: list[Segment]) -> None:
    """Write what is missing of all segments that there are."""
    writer = Writer(Folder(folder), "cdc", "postgresql", file_bytes=SMALL_FILE).open()
    try:
        for segment in given[writer.next :]:
            writer.append(segment)
    finally:
        writer.close()


def everything(folder: Path, begin: int = 0) -> list[Any]:
    """What a reader sees."""
    reader, found = Reader(Folder(folder), begin), []
    while (record := reader.read()) is not None:
        found.append(said(record[1]))
    return found


def numbered(begin: int, count: int) -> list[Segment]:
    """Plain segments of one transaction each."""
    plain = natives()
    made = []
    for order in range(begin, begin + count):
        orders = replace(plain.transactions, order=plain.transactions.order * 0 + order, write=write_lsn)
        position = replace(plain.checkpoint.position, order=order, text=write_lsn(order)) if plain.checkpoint else None
        assert position is not None
        made.append(replace(plain, transactions=orders, checkpoint=Checkpoint(position, f"state {order % 3}")))
    return made


def durable_part(given: list[Segment]) -> list[Segment]:
    """Up to the last checkpoint."""
    ends = [index + 1 for index, segment in enumerate(given) if segment.checkpoint is not None]
    return given[: ends[-1]] if ends else []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_crash_takes_what_was_not_durable_and_no_more(tmp_path: Path, data: st.DataObject) -> None:
    """D-01, D-12: whatever the last bytes are, the next writer goes on from the last checkpoint, and its state is that
    of that checkpoint."""
    folder = tmp_path / "journal"
    shutil.rmtree(folder, ignore_errors=True)
    history: list[Segment] = []
    for _ in range(data.draw(st.integers(1, 3))):
        new = [data.draw(segments(1000 * (len(history) + i + 1))) for i in range(data.draw(st.integers(1, 6)))]
        write(folder, new)
        kept = [*history, *durable_part(new)] if durable_part(new) else history
        _tear(Folder(folder), data)
        writer = Writer(Folder(folder), "cdc", "postgresql", file_bytes=SMALL_FILE).open()
        assert (writer.checkpoint, writer.next) == (kept[-1].checkpoint if kept else None, len(kept))
        writer.close()
        assert everything(folder) == [said(segment) for segment in kept]
        history = kept


def _tear(folder: Folder, data: st.DataObject) -> None:
    """Leave of what is not durable what a crash may leave of it: a part, zeros, anything."""
    durable = folder.last_durable()
    full = {entry.first for entry in folder.read_manifest().files}
    last = max(set(folder.files()) - full, default=None)
    if last is None:
        return
    path = folder.file(last)
    safe = durable.end if durable is not None and durable.file == last else 0
    content = path.read_bytes()
    torn = content[: data.draw(st.integers(safe, len(content)))]
    path.write_bytes(torn + data.draw(st.one_of(st.binary(max_size=50), st.just(bytes(100)))))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A journal of several files."""
    write(tmp_path / "j", numbered(1, 12))
    assert len(Folder(tmp_path / "j").files()) >= 3
    return tmp_path / "j"


def test_any_damage_of_what_was_durable_is_found_and_named(filled: Path) -> None:
    """Its reader says which file it is; the last file is checked when it is opened for writing."""
    folder = Folder(filled)
    for first, size in sizes(folder):
        path = folder.file(first)
        whole = path.read_bytes()
        for at in range(SEED % 199, size, 199):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
            try:
                seen = everything(filled)
            except JournalDamaged as error:
                named = path.name in str(error)
                assert named
                assert [name for name, found in verify_files(folder) if found is not None] == [path.name]
                if first == folder.files()[-1]:
                    with pytest.raises(JournalDamaged):
                        Writer(folder, "cdc", "postgresql", file_bytes=SMALL_FILE).open()
                continue
            assert len(seen) == 12  # the bit means nothing to anybody
        path.write_bytes(whole)
    assert [found for _, found in verify_files(folder)] == [None] * len(folder.files())


@pytest.mark.parametrize("lost", ["missing", "empty", "zeros"])
def test_how_far_it_goes_is_lost(filled: Path, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    """H15: a journal whose durable.json a power cut took is no empty one. All that read it name the file; `cdc journal
    repair`, or the next writer, finds out from the data files what it said."""
    folder, file = Folder(filled), filled / "durable.json"
    held, said_before = everything(filled), file.read_bytes()
    file.unlink() if lost == "missing" else file.write_bytes(b"" if lost == "empty" else bytes(len(said_before)))
    target = filled.parent / "t.duckdb"
    for command in (
        ["journal", "verify", str(filled)],
        ["journal", "ls", str(filled)],
        ["journal", "info", str(filled)],
        ["rebuild", f"duckdb:{target}", "--from", f"journal:{filled}"],
        ["run", f"journal:{filled}", f"duckdb:{target}", "--until-caught-up"],
        ["tail", f"journal:{filled}", "--until-caught-up"],
    ):
        with pytest.raises(JournalDamaged, match=r"durable\.json is missing") as refused:
            app(command)
        assert f"cdc journal repair {filled}" in str(refused.value.hint)
    with pytest.raises(SystemExit) as ended:
        app(["journal", "repair", str(filled)])
    assert ended.value.code == 0
    assert "12 records, up to 0/C" in capsys.readouterr().out
    assert file.read_bytes() == said_before
    assert everything(filled) == held
    assert [found for _, found in verify_files(folder)] == [None] * len(folder.files())


def test_a_journal_that_has_nothing_yet_is_empty(tmp_path: Path) -> None:
    """H15: readers may come before the first record, also while a first one is half written."""
    writer = Writer(Folder(tmp_path), "cdc", "postgresql").open()
    writer.append(replace(numbered(1, 1)[0], checkpoint=None))
    assert everything(tmp_path) == []
    assert list_files(Folder(tmp_path)) == []
    writer.close()


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_file_that_is_missing_or_short_is_an_error(filled: Path, which: int) -> None:
    """Nothing is ever begun again, or skipped, since a file is gone."""
    folder = Folder(filled)
    path = folder.file(folder.files()[which])
    whole = path.read_bytes()
    for change in (path.unlink, lambda: path.write_bytes(whole[: len(whole) // 2])):
        change()
        with pytest.raises(JournalDamaged):
            everything(filled)
        with pytest.raises(JournalDamaged):
            Writer(folder, "cdc", "postgresql", file_bytes=SMALL_FILE).open()
        path.write_bytes(whole)
    write(filled, numbered(13, 1))
    assert len(everything(filled)) == 13


def test_one_process_writes(filled: Path) -> None:
    """D-17."""
    writer = Writer(Folder(filled), "cdc", "postgresql").open()
    with pytest.raises(TargetBusy):
        Writer(Folder(filled), "cdc", "postgresql").open()
    writer.close()
    Writer(Folder(filled), "cdc", "postgresql").open().close()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(UsageError, match="not a journal"):
        Writer(Folder(tmp_path), "cdc", "postgresql").open()
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter"]


def test_a_file_that_was_full_when_the_process_died(filled: Path) -> None:
    """The manifest is behind by one file; it learns of it."""
    folder = Folder(filled)
    manifest = folder.read_manifest()
    folder.write_manifest(replace(manifest, files=manifest.files[:-1]))
    writer = Writer(folder, "cdc", "postgresql", file_bytes=SMALL_FILE).open()
    assert [replace(entry, closed_at=0) for entry in writer.manifest.files] == [
        replace(entry, closed_at=0) for entry in manifest.files
    ]
    writer.close()
    assert len(everything(filled)) == 12


def test_a_listing_reads_in_order_and_seeking_opens_one_file(filled: Path) -> None:
    reports = list_files(Folder(filled))
    assert [report.name for report in reports] == sorted(report.name for report in reports)
    assert [report.first for report in reports] == [0, *[r.first + r.records for r in reports[:-1]]]
    assert reports[-1].position == "0/C"
    assert bytes_from(Folder(filled), 0) == sum(report.size for report in reports)
    assert bytes_from(Folder(filled), 12) == 0
    for report in reports[:-1]:
        Folder(filled).file(report.first).unlink()
    assert len(everything(filled, reports[-1].first)) == 12 - reports[-1].first


def test_what_comes_again_is_not_recorded_again(tmp_path: Path) -> None:
    """D-05: segments that were there, and some that reach back behind the checkpoint."""
    journal, given = target(tmp_path / "j"), numbered(1, 4)
    journal.open()
    for segment in (given[0], given[1], given[0], given[1], given[2]):
        journal.apply(segment)
    journal.close()
    assert journal.open() == given[2].checkpoint
    journal.apply(given[3])
    journal.close()
    orders = [order for record in everything(tmp_path / "j") for order in _orders(record)]
    assert orders in ([1, 2, 2, 3, 4], [1, 2, 3, 4])


def _orders(record: list[Any]) -> list[int]:
    return [event.position.order for step in record[4:] for event in step[4][:1]]


def test_who_looks_keeps_nobody_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O33: a look at a large journal takes longer than a run waits for it; what it finds then is not what is there."""
    go_on(tmp_path / "j", numbered(1, 3))
    looking, writing = Writer(Folder(tmp_path / "j")), Writer(Folder(tmp_path / "j"))
    find_end, began = Writer._find_end, list[Writer]()

    def meanwhile(writer: Writer) -> list[int]:
        if writer is looking:
            began.append(writing.open())
        return find_end(writer)

    monkeypatch.setattr(Writer, "_find_end", meanwhile)
    with pytest.raises(TargetBusy):
        looking.look()
    assert began == [writing]
    writing.close()
    assert Writer(Folder(tmp_path / "j")).look().next == 3


@pytest.mark.parametrize("point", ["journal.written", "journal.synced", "journal.file_full"])
def test_a_step_that_is_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """D-19, O42: whatever was done of a record, or of a file that is full, the next writer makes the best of it. A look
    finds the same end, and writes nothing."""
    given = numbered(1, 12)
    for nth in range(1, 4):
        with monkeypatch.context() as armed:
            armed.setattr(faults, "_armed", faults.parse(f"{point}:{nth}=fail"))
            with pytest.raises(faults.FaultLasting):
                go_on(tmp_path / "j", given)
        before = {path: path.read_bytes() for path in (tmp_path / "j").iterdir()}
        seen = Writer(Folder(tmp_path / "j")).look()
        assert {path: path.read_bytes() for path in (tmp_path / "j").iterdir()} == before
        shutil.copytree(tmp_path / "j", tmp_path / f"copy{nth}")
        found = Writer(Folder(tmp_path / f"copy{nth}"), file_bytes=SMALL_FILE).open()
        found.close()
        assert (seen.next, seen.checkpoint, seen.copying) == (found.next, found.checkpoint, found.copying)
    go_on(tmp_path / "j", given)
    assert everything(tmp_path / "j") == [said(segment) for segment in given]


def test_rows_that_came_in_part_while_their_table_was_copied(tmp_path: Path) -> None:
    """C-07, A-39: a target that is fed later may not have had them: they are read again."""
    schema = table(2, [0])
    journal, ends = target(tmp_path / "j"), iter(numbered(1, 2))
    journal.open()
    journal.apply(replace(next(ends), steps=[Reset(schema, by_parts=True)]))
    changes = batch(
        schema,
        [
            (Op.INSERT, None, ("new", "v")),
            (Op.UPDATE, None, ("partly", UNCHANGED)),
            (Op.UPDATE, None, ("whole", "v")),
            (Op.UPDATE, ("from", None), ("to", "v")),
            (Op.DELETE, ("gone", None), None),
        ],
    )
    journal.apply(replace(next(ends), steps=[Changes(changes)]))
    assert journal.copying == {schema.identity}
    assert journal.take_missed(schema) == [("partly",), ("to",)]
    assert journal.take_missed(schema) == []
    journal.close()


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_nothing_goes_that_a_target_still_needs(filled: Path) -> None:
    folder = Folder(filled)
    second = folder.files()[1]
    write_reader(folder, ReaderEntry("a", "shop", second, None, 0.0))
    journal = target(filled, Retention(age=0.0))
    journal.open()
    journal.close()
    assert folder.files()[0] == second
    write_reader(folder, ReaderEntry("a", "shop", 12, "12", 0.0))
    journal.open()
    assert folder.read_manifest().files == ()
    journal.apply(numbered(13, 1)[0])
    journal.close()
    assert len(everything(filled, 12)) == 1


def test_size_keeps_the_newest(filled: Path) -> None:
    folder = Folder(filled)
    total = sum(size for _, size in sizes(folder))
    journal = target(filled, Retention(size=total - 1))
    journal.open()
    journal.close()
    assert len(folder.files()) == len(list_files(folder)) > 1
    assert folder.files()[0] > 0
    with pytest.raises(OperatorNeeded, match="was removed"):
        JournalSource(folder, "new", Selection(), 1 << 20).open(None)


def test_a_full_budget_stops_and_goes_on_when_there_is_room(filled: Path) -> None:
    """E-08, D-13: the journal does not grow without bound while a target is down."""
    folder = Folder(filled)
    write_reader(folder, ReaderEntry("a", "shop", 0, None, 0.0))
    journal = target(filled, Retention(age=0.0, budget=1000))
    journal.open()
    with pytest.raises(JournalFull, match="shop at record 0"):
        journal.apply(numbered(13, 1)[0])
    journal.close()
    write_reader(folder, ReaderEntry("a", "shop", 12, "12", 0.0))
    journal.open()
    journal.apply(numbered(13, 1)[0])
    journal.close()
    assert len(everything(filled, 12)) == 1


def test_how_long_the_budget_lasts(filled: Path) -> None:
    manifest = Folder(filled).read_manifest()
    now = time.time()
    first, second = manifest.files[:2]
    slow = replace(manifest, files=(replace(first, closed_at=now - 100), replace(second, closed_at=now)))
    assert seconds_left(slow, 0, 10 * second.size, now) == pytest.approx(1000)
    assert seconds_left(replace(manifest, files=(first,)), 0, 10**9, now) is None


# --- as a source ----------------------------------------------------------------------------------------------------


def follow(source: JournalSource, link: Handoff, count: int) -> list[Segment]:
    """So many transactions of a source that is open."""
    found: list[Segment] = []
    stream = source.stream(link)
    while sum(len(segment.transactions) for segment in found) < count:
        found.append(next(stream))
    return found


def test_a_source_goes_on_where_the_target_is(filled: Path) -> None:
    """Wherever a target stopped; records are joined, and none comes twice or not at all."""
    folder = Folder(filled)
    source = JournalSource(folder, "shop", Selection(), 1)  # so that none are joined
    source.open(None)
    first = follow(source, Handoff(1 << 20), 12)
    assert [segment.transactions.order.tolist() for segment in first] == [[order] for order in range(1, 13)]
    for segment in first[:-1]:
        assert segment.checkpoint is not None
        again = JournalSource(folder, "shop", Selection(), 1 << 30)
        again.open(segment.checkpoint)
        rest = follow(again, Handoff(1 << 20), 12 - segment.checkpoint.position.order)
        assert [order for part in rest for order in part.transactions.order.tolist()] == list(
            range(segment.checkpoint.position.order + 1, 13)
        )
        assert len(rest) == 1
    assert len(read_readers(folder)) == 1


def test_a_checkpoint_of_another_journal_or_an_earlier_state_of_it_is_refused(filled: Path, tmp_path: Path) -> None:
    """Never from the beginning, never from somewhere."""
    write(tmp_path / "other", numbered(1, 2))
    source = JournalSource(Folder(filled), "shop", Selection(), 1 << 30)
    source.open(None)
    (all_of_it,) = follow(source, Handoff(1 << 20), 12)
    with pytest.raises(SourceChanged, match="another journal"):
        JournalSource(Folder(tmp_path / "other"), "shop", Selection(), 1).open(all_of_it.checkpoint)
    shutil.copy(Folder(filled).path / "manifest.json", tmp_path / "other" / "manifest.json")
    with pytest.raises(SourceChanged, match="earlier state"):
        JournalSource(Folder(tmp_path / "other"), "shop", Selection(), 1).open(all_of_it.checkpoint)
    with pytest.raises(UsageError, match="other tables"):
        JournalSource(Folder(filled), "shop", Selection(("a",)), 1).open(all_of_it.checkpoint)


def test_the_audit_stream_of_a_journal(filled: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """All of it, or from a position or a time on; nothing is kept for a reader that only reads."""

    def tail(*arguments: str) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            app(["tail", f"journal:{filled}", "--until-caught-up", *arguments])
        assert ended.value.code == 0
        events = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
        return [event["position"] for event in events if event["op"] != "schema"]

    assert tail() == []
    assert tail("--from", "0/9") == ["0/A", "0/A", "0/B", "0/B", "0/C", "0/C"]
    assert tail("--from", "1970-01-01T00:00:00.000009Z") == [write_lsn(n) for n in range(1, 13) for _ in range(2)]
    assert tail("--from", "1970-01-01T00:00:00.000010Z") == []
    assert tail("--from", "0/9", "--tables", "other.*") == []
    assert read_readers(Folder(filled)) == []
