"""Which inputs are worth keeping: the smallest that together reach every line which any of them reaches."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.corpus import CORPUS, LONGEST, TRACED, inputs

_MOST = 12 << 10  # bytes of a target's inputs

Line = tuple[str, int, int]


def minimise(target: str, found: Path) -> int:
    """Take into a target's corpus what of a folder is worth it, and out of it what is not; says how many stay.

    What has a name (`crash-what-it-was`) was a defect once, and stays.
    """
    one_input = importlib.import_module(f"tests.fuzz.targets.{target}").one_input
    one_input(b"")
    files = tuple(str(Path(*name.split("."))) for name in TRACED[target])
    kept = [file for file in inputs(target) if file.name.startswith("crash-")]
    others = [file for file in (*inputs(target), *found.iterdir()) if file not in kept]
    reached: set[Line] = set()
    chosen, size = [], 0
    for content in sorted({file.read_bytes() for file in others}, key=lambda each: (len(each), each)):
        lines = _lines(one_input, content, files)
        if lines <= reached or len(content) > LONGEST or size + len(content) > _MOST:
            continue
        reached |= lines
        size += len(content)
        chosen.append(content)
    home = CORPUS / target
    home.mkdir(exist_ok=True)
    for file in set(inputs(target)) - set(kept):
        file.unlink()
    for content in chosen:
        (home / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)
    return len(inputs(target))


def _lines(one_input: Callable[[bytes], None], content: bytes, files: Iterable[str]) -> set[Line]:
    """The steps from line to line of the code under test."""
    reached: set[Line] = set()
    last = [0]

    def line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            reached.add((frame.f_code.co_filename, last[0], frame.f_lineno))
            last[0] = frame.f_lineno
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        return line if any(name in frame.f_code.co_filename for name in files) else None

    sys.settrace(call)
    try:
        one_input(content)
    finally:
        sys.settrace(None)
    return reached
