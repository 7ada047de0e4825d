"""Named fault points: places where a test may stop the process or raise, to prove that nothing is lost there (G, D-19).

`CDC_FAULT=name` kills the process with SIGKILL the first time it passes that point; `CDC_FAULT=name:3` the third time.
Unset, which is always so in production, a point costs one dictionary lookup.
"""

from __future__ import annotations

import os
import signal

_ENVIRONMENT = "CDC_FAULT"


def _armed() -> tuple[str, int] | None:
    setting = os.environ.get(_ENVIRONMENT)
    if not setting:
        return None
    name, _, nth = setting.partition(":")
    return name, int(nth or 1)


_fault = _armed()
_passed: dict[str, int] = {}


def point(name: str) -> None:
    """Mark a point of the program that a test may kill the process at."""
    if _fault is None or _fault[0] != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == _fault[1]:
        os.kill(os.getpid(), signal.SIGKILL)
