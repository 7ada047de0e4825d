"""For programs that read a replica: waiting until it has what they have just written to the source.

import cdc

position = application.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0]  # after its commit
cdc.Replica("duckdb:shop.duckdb").wait_for(position, timeout=10)
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from cdc.connectors import has_reached, table_standings, target_module
from cdc.errors import NotReached, TargetBusy, Unavailable, UsageError
from cdc.jobs.control import Values, ask
from cdc.model.position import Checkpoint
from cdc.model.standing import State
from cdc.options import NAMELESS
from cdc.whereabouts import control_socket, last_said, read_status

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.1  # seconds
_GRACE = 2.0  # seconds in which a process answers that the time is over


class Replica:
    """A target as its readers see it.

    Args:
        target: as `cdc run` has it.
        name: of its pipeline, where it has one and the target is no file.
    """

    def __init__(self, target: str, *, name: str | None = None) -> None:
        self._target = target
        self._name = name or NAMELESS
        self._module, self._place = target_module(target)

    def wait_for(self, position: str, timeout: float = 60.0, *, published: bool = False) -> str:
        """Wait until everything up to a position is in the replica. It is durable then, and every reader sees it.

        Args:
            position: as the source writes it: an LSN, GTIDs, or `file:byte`.
            timeout: seconds.
            published: in the copy that the pipeline publishes, which others read while it runs.

        Returns:
            The position that the replica has.

        Raises:
            NotReached: it has not come in that time; or nobody runs the pipeline, and it is not there.
            UsageError: it is no position of this source, or there is no such replica.
        """
        until = time.monotonic() + timeout
        return self._copy_has(position, until) if published else self._has(position, until, timeout)

    def _has(self, position: str, until: float, timeout: float) -> str:
        while True:
            left = max(0.0, until - time.monotonic())
            try:
                answer = ask(
                    self._socket, "wait", {"position": position, "timeout": left}, lambda _: None, left + _GRACE
                )
            except Unavailable:  # it has ended meanwhile, and may be started again; or it does not answer
                answer = None
            if answer is not None:
                return self._of(answer, position, timeout)
            try:
                checkpoint = self._checkpoint(self._place)
            except TargetBusy:  # a process that has just begun listens a moment after it has opened its target
                checkpoint = None
            else:
                if checkpoint is not None and has_reached(checkpoint, position):
                    return checkpoint.position.text
                if self._module.file_of(self._place) is not None and not self._is_run:
                    raise NotReached(
                        f"{self._target} does not have {position}, and no process runs its pipeline: "
                        f"{_at(checkpoint.position.text if checkpoint is not None else None)}.",
                        hint="`cdc run SOURCE TARGET` goes on.",
                    )
            self._rest(until, position, checkpoint)

    def _of(self, answer: Values, position: str, timeout: float) -> str:
        if not answer["reached"]:
            doing = f" ({answer['failure']})" if answer["failure"] else ""
            raise NotReached(
                f"{self._target} has not reached {position} within {timeout:g} s: {_at(answer['position'])}, "
                f"{answer['lag_seconds']:.1f} s behind, and is {answer['phase']}{doing}.",
                hint="`cdc status SOURCE TARGET` shows why.",
            )
        if answer["held"]:
            log.warning("Without the changes of tables that are held: %s.", ", ".join(answer["held"]))
        return str(answer["position"])

    def _copy_has(self, position: str, until: float) -> str:
        """The copy is a file that anybody may open."""
        said: dict[str, Any] = last_said(self._target, self._name).get("publication") or {}
        if not said:
            raise UsageError(
                f"The pipeline of {self._target} publishes no copy.",
                hint="Leave --published out, or run the pipeline with a copy: cdc run SOURCE TARGET --publish FILE",
            )
        file = Path(said["file"])
        while True:
            checkpoint = self._checkpoint(str(file)) if file.exists() else None
            if checkpoint is not None and has_reached(checkpoint, position):
                return checkpoint.position.text
            if not self._is_run:
                raise NotReached(
                    f"{file} does not have {position}, and no process runs the pipeline that publishes it: "
                    f"{_at(checkpoint.position.text if checkpoint is not None else None)}.",
                    hint="`cdc run SOURCE TARGET --publish FILE` goes on.",
                )
            self._rest(until, position, checkpoint)

    def _checkpoint(self, place: str) -> Checkpoint | None:
        """The checkpoint, if all tables are there with their rows."""
        checkpoint = self._module.read_checkpoint(place, self._name)
        if checkpoint is None:
            return None
        standings = [*table_standings(checkpoint.state), *self._module.read_marks(place, self._name).values()]
        return checkpoint if all(standing.state is not State.COPYING for standing in standings) else None

    def _rest(self, until: float, position: str, checkpoint: Checkpoint | None) -> None:
        if time.monotonic() >= until:
            at = _at(checkpoint.position.text if checkpoint is not None else None)
            raise NotReached(
                f"{self._target} has not reached {position} in time: {at}.",
                hint="`cdc status SOURCE TARGET` shows why.",
            )
        time.sleep(_LOOK_EVERY)

    @property
    def _socket(self) -> Path:
        return control_socket(self._target, self._name)

    @property
    def _is_run(self) -> bool:
        said = read_status(self._target, self._name)
        return bool(said) and said.get("phase") != "stopped"


def _at(position: str | None) -> str:
    return f"it is at {position}" if position is not None else "it has nothing yet, or is being copied"
