"""Tidying up a target: what fails of it is left until the next time, and a lost lease ends the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from cdc.errors import TargetBusy, TargetFull, Unavailable
from cdc.jobs import tidying
from cdc.model.segment import Segment
from cdc.source import Link
from tests.test_pipeline import Script, ScriptTarget, segment


class UntidyTarget(ScriptTarget):
    """Each call of `tidy` ends as the next one of `ends` says."""

    def __init__(self, script: Script, ends: Iterator[bool | Exception]) -> None:
        super().__init__(script)
        self.ends = ends

    def tidy(self) -> bool:
        end = next(self.ends)
        if isinstance(end, Exception):
            raise end
        return end


def test_what_fails_is_left_until_the_next_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D-17: the run goes on, unless another process has the lease."""
    monkeypatch.setattr(tidying, "_EVERY", 0.01)
    script = Script()

    def stream(link: Link) -> Iterator[Segment]:
        yield segment(1)
        while not link.stopping:
            time.sleep(0.001)

    monkeypatch.setattr(script, "stream", stream)
    ends = iter(
        [True, False, Unavailable("It takes long."), True, TargetFull("There is no room."), TargetBusy("Lost.")]
    )
    monkeypatch.setattr(script, "target", lambda: UntidyTarget(script, ends))
    pipeline = script.pipeline()
    pipeline.companions.append(partial(tidying.tidy, pipeline))
    with pytest.raises(TargetBusy, match=r"Lost\."):
        pipeline.run()
    assert next(ends, None) is None
    assert (script.opened, script.applied) == (1, [1])
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("It takes long" in line, "There is no room" in line) for line in said] == [(True, False), (False, True)]
