"""Which pipeline a target is of, and where the process that runs it says how it is and listens."""

from __future__ import annotations

import os
import re
from pathlib import Path

import orjson

from cdc import journal
from cdc.connectors import JOURNAL, database_module, kind_of, target_module
from cdc.errors import TargetBusy, UsageError
from cdc.jobs.control import Values, is_served, socket_path
from cdc.journal.observer import source_state
from cdc.logs import without_password
from cdc.options import NAMELESS


def name_of(source: str, target: str, given: str | None) -> str:
    """The name of a target's pipeline: as it was given; as the target, or the journal that feeds it, has it; for a new
    one after the target's file.

    Raises:
        CheckpointUnreadable: the target's pipeline is one of another kind of source.
    """
    if given is not None:
        return given
    module, path = target_module(target)
    if kind_of(source) == JOURNAL:
        return journal.written_by(source)
    file = module.file_of(path)
    if file is None:
        return NAMELESS
    said = read_status(target, "")
    if said and is_served(Path(said.get("socket", ""))):  # it runs, and its file need not be opened for its name
        return str(said["pipeline"])
    stem = re.sub(r"[^a-z0-9]+", "_", file.name.partition(".")[0].lower()).strip("_")
    new = stem[:40] or NAMELESS
    try:
        checkpoint = module.read_checkpoint(path, "")
    except TargetBusy:  # also by a run that has just opened it, and has said nothing yet
        running: str = last_said(target, "").get("pipeline", new)
        return running
    if checkpoint is None:
        return new
    return pipeline_of(source, checkpoint.state, new)


def pipeline_of(source: str, state: str, name: str) -> str:
    """The name of the pipeline that a target's state belongs to; a journal feeds targets under any name."""
    if kind_of(source) == JOURNAL:
        return name
    return database_module(source).pipeline_of(source_state(state))


def refuse_other(target: str, name: str, pipeline: str) -> None:
    """What is asked of a target is of its own pipeline (O28, O44).

    Raises:
        UsageError: it is of another one.
    """
    if pipeline != name:
        shown = without_password(target)
        raise UsageError(f"{shown} belongs to the pipeline {pipeline!r}.", hint=f"Give its name: --name {pipeline}")


def own_socket(target: str, name: str) -> Path:
    """Where this process listens if it runs a target's pipeline."""
    module, place = target_module(target)
    file = module.file_of(place)
    return socket_path(f"{name}@{_server(place)}" if file is None else str(file.resolve()))


def control_socket(target: str, name: str) -> Path:
    """Where a target's pipeline listens: by its own account, since its environment may be another one (O8)."""
    said = read_status(target, name).get("socket")
    return Path(said) if said is not None else own_socket(target, name)


def status_file(target: str, name: str) -> Path:
    """Where a running pipeline says how it is: beside its file, which nobody else can read meanwhile, or its socket."""
    module, place = target_module(target)
    file = module.file_of(place)
    return own_socket(target, name).with_suffix(".json") if file is None else Path(f"{file}.cdc.json")


def last_said(target: str, name: str) -> Values:
    """What a process that runs, or ran, a target's pipeline has said last; empty if there was no such process."""
    try:
        content: Values = orjson.loads(status_file(target, name).read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def read_status(target: str, name: str) -> Values:
    """What the process that runs a target's pipeline has said last; empty if no such process lives."""
    content = last_said(target, name)
    try:
        os.kill(content["pid"], 0)
    except PermissionError:  # it lives, and is another user's
        return content
    except (OSError, KeyError):
        return {}
    return content


def _server(path: str) -> str:
    """A server's address without what is said of how to write to it."""
    return path.partition("?")[0].strip("/")
