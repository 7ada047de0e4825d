"""Schemas with their statements under one pipeline, and what differs in the end."""

from __future__ import annotations

import random
import re
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from cdc.model.standing import Standing, State
from integration.schema_changes.comparison import Target, differences
from integration.schema_changes.follower import Follower, RunEnded
from integration.schema_changes.script import Group, Script, interleaved
from integration.schema_changes.servers import Server

_KILL_EVERY = 40  # statements

# Reasons for which a table may be held in the end: parts of what is said of it.
_HELD_FOR: tuple[str, ...] = ()


class When(Enum):
    """What `cdc run` does while the statements run."""

    FOLLOWING = "following"
    STANDING = "standing still"
    KILLED = "following and killed"


@dataclass(slots=True)
class Outcome:
    """What a round came to.

    Attributes:
        ended: what the pipeline said when it ended by itself; None if it went on to the end.
        different: differences by the group's name.
    """

    ended: str | None = None
    different: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.ended is None and not self.different


def play(server: Server, groups: Sequence[Group], when: When, rng: random.Random) -> Outcome:
    """Copy what is there, run all groups, and compare in the end."""
    with tempfile.TemporaryDirectory() as folder:
        follower = Follower(server, Path(folder))
        outcome = Outcome()
        steps = 0

        def between() -> None:
            nonlocal steps
            steps += 1
            if when is not When.STANDING:
                follower.check()
            if when is When.KILLED and steps % _KILL_EVERY == _KILL_EVERY // 2:
                follower.stop(signal.SIGKILL)
                follower.start()

        for group in groups:
            group.prepare()
        try:
            if when is When.STANDING:
                follower.catch_up()
            else:
                follower.start()
            interleaved(list(groups), rng, between)
            follower.stop()
            standings = follower.catch_up()
            names = {group.session.schema: group.name for group in groups}
            different = compared(server, list(names), follower.path, standings)
            outcome.different = {names[schema]: found for schema, found in different.items()}
        except RunEnded as error:
            outcome.ended = str(error)
        finally:
            follower.give_up()
    return outcome


def replay(make: Callable[[], Server], script: Script, when: When) -> Outcome:
    """Run one script alone."""
    with closing(make()) as server, closing(begun(server, script)) as group:
        return play(server, [group], when, random.Random(0))


def begun(server: Server, script: Script) -> Group:
    """A script in a schema of its own."""
    return Group(script.name, server.session(server.make()), script.setup, script.begin())


def shrunk(make: Callable[[], Server], script: Script, when: When, until: float) -> Script:
    """A script with fewer statements that fails as well: halves, quarters and so on are left out in turn.

    Args:
        until: when to be content with what was found (`time.monotonic`).
    """
    size = len(script.statements) // 2
    while size:
        at = 0
        while at < len(script.statements):
            if time.monotonic() > until:
                return script
            fewer = script.with_statements(script.statements[:at] + script.statements[at + size :])
            if replay(make, fewer, when).is_good:
                at += size
            else:
                script = fewer
        size //= 2
    return script


def compared(
    server: Server, schemas: Sequence[str], path: Path, standings: Mapping[str, Standing]
) -> dict[str, list[str]]:
    """Differences by schema, and tables that are not followed without a reason that is known to be right."""
    found: dict[str, list[str]] = {}
    with Target(path) as target:
        for table in server.tables(schemas):
            standing = standings.get(str(table))
            if table.excuse is not None or (standing is not None and _is_rightly_held(standing)):
                continue
            if standing is not None and standing.state is not State.FOLLOWING:
                difference: str | None = f"{table} is {standing.state}: {standing.reason}"
            else:
                difference = differences(table, target)
            if difference is not None:
                found.setdefault(table.schema, []).append(difference)
    return found


def _is_rightly_held(standing: Standing) -> bool:
    return standing.state is State.HELD and any(re.search(reason, standing.reason) for reason in _HELD_FOR)
