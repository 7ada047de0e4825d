"""`jsonl:FILE` without a server: crashes anywhere, segments that come again, damage from outside."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from cdc import faults
from cdc.errors import CheckpointUnreadable, TargetBusy, TargetDrift, UsageError
from cdc.faults import FaultPassing
from cdc.model.change import Op, Transactions
from cdc.model.parts import Part
from cdc.model.segment import Reset, Segment
from cdc.target import Replaceable, TargetSettings
from cdc.targets.jsonl import copy_parts, read_checkpoint, target_factory, target_removals
from cdc.targets.jsonl.target import JsonLinesTarget
from integration.audit import assert_in_order, files, read
from tests.formats.segments import UNCHANGED, Change, Story, batch, schemas, segment, story
from tests.formats.test_plain import lines

POINTS = ("target.begun", "target.before_checkpoint", "target.before_commit", "target.after_commit")


def opened(path: Path, rotate: int = 1 << 20) -> JsonLinesTarget:
    target = target_factory(str(path), TargetSettings("audit", "postgresql", 0, rotate=rotate))()
    target.open()
    return target


def without_totals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in event.items() if name != "total"} for event in events]


@pytest.mark.parametrize("seed", range(30))
def test_crashes_and_repetitions(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-05, D-14, D-23: it fails anywhere, and is given again what it has: every event once, in order."""
    rng, path = random.Random(seed), tmp_path / "audit.jsonl"
    script = story(rng)
    rotate = rng.choice([1, 500, 1 << 20])
    target = opened(path, rotate)
    at = 0
    while at < len(script.segments):
        point = rng.choice(POINTS) if rng.random() < 0.4 else None
        monkeypatch.setattr(faults, "_armed", faults.parse(f"{point}=raise") if point else {})
        try:
            target.apply(script.segments[at])
            at += 1
            if rng.random() > 0.2:
                continue
        except FaultPassing:
            pass
        monkeypatch.setattr(faults, "_armed", {})
        target.close()
        target = opened(path, rotate)
        at = _begin(script, read_checkpoint_of(target), rng)
    target.close()
    assert_in_order(read(path))
    assert without_totals(read(path)) == without_totals(lines(script))
    if rotate == 1:
        assert len(files(path)) == len(script.segments)


def read_checkpoint_of(target: JsonLinesTarget) -> int | None:
    return target._saved.order


def _begin(script: Story, at: int | None, rng: random.Random) -> int:
    """Where a source goes on that was opened with a checkpoint; or some whole segments before that."""
    begins = [0, *(index + 1 for index, part in enumerate(script.segments) if part.checkpoint is not None)]
    reached = [
        index
        for index in begins
        if index == 0 or (at is not None and (c := script.segments[index - 1].checkpoint) and c.position.order <= at)
    ]
    return rng.choice(reached[-2:])


def test_segments_that_overlap(tmp_path: Path) -> None:
    """D-05: the same transactions cut otherwise add nothing."""
    script = story(random.Random(3))
    half = script.changes[len(script.changes) // 2].order
    first = [change for change in script.changes if change.order <= half]
    target = opened(tmp_path / "a.jsonl")
    target.apply(segment(first, True))
    target.apply(segment(script.changes, True))
    target.apply(segment(first, True))
    target.close()
    assert without_totals(read(tmp_path / "a.jsonl")) == without_totals(lines(script))


def test_one_process_writes(tmp_path: Path) -> None:
    """D-17: the second one ends with an error that says so, and has changed nothing."""
    path = tmp_path / "a.jsonl"
    script = story(random.Random(1))
    target = opened(path)
    target.apply(script.segments[0])
    with pytest.raises(TargetBusy):
        opened(path)
    with pytest.raises(TargetBusy):
        read_checkpoint(str(path), "cdc")
    target.close()
    assert isinstance(target, Replaceable)
    opened(path).close()
    read_checkpoint(str(path), "cdc")


def test_what_is_not_ours(tmp_path: Path) -> None:
    """Files of somebody else, or of another format, are left as they are."""
    path = tmp_path / "a.jsonl"
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="no pipeline wrote"):
        opened(path)
    assert path.read_text() == "mine\n"
    with pytest.raises(UsageError, match=r"cannot open .*nowhere"):
        opened(tmp_path / "nowhere" / "a.jsonl")


def test_damage(tmp_path: Path) -> None:
    """Files that lost lines, and checkpoints that cannot be read, stop the pipeline."""
    path = tmp_path / "a.jsonl"
    script = story(random.Random(1))
    target = opened(path)
    for part in script.segments:
        target.apply(part)
    target.close()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(TargetDrift):
        opened(path)
    path.write_bytes(content)
    place = path.with_name("a.jsonl.checkpoint")
    saved = orjson.loads(place.read_bytes())
    for damaged in (b"", b"{}", orjson.dumps(saved | {"version": 2}), orjson.dumps(saved | {"length": "1"})):
        place.write_bytes(damaged)
        with pytest.raises(CheckpointUnreadable):
            opened(path)
    place.write_bytes(orjson.dumps(saved))
    for removal in (found := target_removals(str(path), "cdc")):
        removal.remove()
    assert found
    assert target_removals(str(path), "cdc") == []
    assert path.read_bytes() == content


def _copied(rows: list[Change]) -> Any:
    return replace(batch(rows, [0]), copied=True)


def test_a_table_that_is_copied_by_parts(tmp_path: Path) -> None:
    """Rows that were emitted in part are read again; the copy survives a restart; rows alone become durable, too."""
    path = tmp_path / "a.jsonl"
    schema = next(s for seed in range(99) for s in schemas(random.Random(seed)) if s.key and len(s.columns) == 3)
    target = opened(path)
    target.apply(Segment([Reset(schema, by_parts=True)], Transactions.none(), segment_end()))
    assert target.copying == {schema.identity}
    target.close()
    target = opened(path)
    assert target.copying == {schema.identity}
    partial = Change(schema, Op.UPDATE, 500, 0, after=["4", UNCHANGED, None])
    target.apply(segment([partial], True))
    target.replace(schema, Part(), [_copied([Change(schema, Op.INSERT, 0, 0, after=["4", None, None])])])
    assert target.take_missed(schema) == [("4",)]
    assert target.take_missed(schema) == []
    target.copied(schema)
    target.close()
    assert opened(path).copying == set()
    assert [event["op"] for event in read(path)] == ["reset", "update", "copy"]
    assert read(path)[2]["position"] == read(path)[1]["position"]


def test_a_table_without_a_key_by_parts(tmp_path: Path) -> None:
    """Its rows void its earlier events; if they come in several parts, nothing would say which."""
    path = tmp_path / "a.jsonl"
    schema = next(s for seed in range(99) for s in schemas(random.Random(seed)) if not s.key)
    target = opened(path)
    target.apply(Segment([Reset(schema, by_parts=True)], Transactions.none(), segment_end()))
    target.replace(schema, Part(), [])
    with pytest.raises(UsageError, match="no key"):
        target.replace(schema, Part(share=0, shares=2), [])
    target.close()
    assert [event["op"] for event in read(path)] == ["reset", "reset"]
    copy_parts(str(path), "cdc", [schema])
    assert [event["op"] for event in read(path)] == ["reset", "reset"], (
        "a copy that goes on would lose what it has emitted"
    )
    target = opened(path)
    target.copied(schema)
    target.close()
    copy_parts(str(path), "cdc", [schema])
    assert [event["op"] for event in read(path)] == ["reset", "reset", "reset"]


def segment_end() -> Any:
    return segment([Change(schemas(random.Random(1))[0], Op.TRUNCATE, 100, 0)], True).checkpoint
