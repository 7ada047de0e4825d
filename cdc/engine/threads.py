"""Threads of a pipeline. Each knows whose it is, so that its log lines can say so where a process has several."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context

# The name of the pipeline that a thread is at work for; empty where a process has one alone.
at_work_for: ContextVar[str] = ContextVar("at_work_for", default="")


def thread(work: Callable[[], object], name: str, *, daemon: bool = False) -> threading.Thread:
    """A thread, not started yet, for the same pipeline as this one."""
    return threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=daemon)
