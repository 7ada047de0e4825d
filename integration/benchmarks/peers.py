"""cdc beside others that do the same: ingestr and Debezium's embedded engine, on the same server, of the same rows, in turn.

What each of them needs to start is measured in the same run, shown by itself, and taken off the rest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Protocol

from rich.console import Console

from cdc.demo.server import PrivatePostgres
from cdc.errors import UsageError
from integration.benchmarks.contenders import Backlog, Contender, IntoFolder
from integration.benchmarks.debezium import Debezium
from integration.benchmarks.drain import ROW, Workload, changing, changing_at_random, inserting, raced
from integration.benchmarks.ingestr import Ingestr
from integration.benchmarks.measure import Took, beside

FASTER_COPY, FASTER_CHANGES = 3.0, 10.0  # to reach


class Peer(Contender, Protocol):
    """A contender that also copies what is there."""

    def copy(self, backlog: Backlog, *, is_idle: bool) -> Took:
        """Copy it into a new target, which goes again; whether there is nothing but the first row yet."""


class Copying:
    """A peer whose work is the first copy."""

    goal = None

    def __init__(self, peer: Peer) -> None:
        self.title = peer.title
        self._peer = peer
        self._backlog: Backlog

    def begin(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def take(self, *, is_idle: bool) -> Took:
        return self._peer.copy(self._backlog, is_idle=is_idle)

    def end(self) -> None:
        """Nothing is left."""


def in_turn(server: PrivatePostgres, console: Console, pairs: int, scale: float) -> None:
    """A start, a copy of 1,000,000 rows, W1, W2 and W2 random."""
    with tempfile.TemporaryDirectory() as folder:
        others = present(console, Path(folder))
        if not others:
            return
        contenders: list[Peer] = [IntoFolder("cdc", "duckdb", Path(folder), None), *others]
        _start(server, console, pairs, contenders)
        copying = [Copying(peer) for peer in contenders]
        _race(copied(scale), server, "peers_copy", console, pairs, copying, FASTER_COPY)
        for name, workload in (("w1", inserting), ("w2", changing), ("w2_random", changing_at_random)):
            _race(workload(scale), server, f"peers_{name}", console, pairs, contenders, FASTER_CHANGES)


def present(console: Console, folder: Path) -> list[Peer]:
    """Those of the others that this machine has; it is said which are left out, and why."""
    peers: list[Peer] = []
    for name, kind in (("ingestr", Ingestr), ("Debezium", Debezium)):
        try:
            peers.append(kind.found(folder))
        except UsageError as error:
            console.print(
                f"{name} is left out: {error} {error.hint or ''}", soft_wrap=True, highlight=False, markup=False
            )
    return peers


def copied(scale: float) -> Workload:
    """1,000,000 rows of ten columns, beyond the first."""
    count = int(1_000_000 * scale)
    work = f"INSERT INTO t SELECT {ROW} FROM generate_series(2, {count}) i"
    return Workload("First copy", count, 1, work, f"SELECT count(*) = 1 FROM t WHERE id = {count}")


def _race(
    workload: Workload,
    server: PrivatePostgres,
    name: str,
    console: Console,
    pairs: int,
    contenders: list[Peer] | list[Copying],
    goal: float,
) -> None:
    backlog = workload.prepared(server, name)
    ours, *theirs = raced(backlog, lambda: server.execute(workload.work, name), pairs, contenders)
    named = [(each.title, took, goal) for each, took in zip(contenders[1:], theirs, strict=True)]
    beside(console, f"{workload.title}, {workload.rows:,} rows", workload.rows, ours, named)


def _start(server: PrivatePostgres, console: Console, pairs: int, contenders: list[Peer]) -> None:
    """From start to end with nothing to do."""
    backlog = copied(0).prepared(server, "peers_start")
    for contender in contenders:
        contender.begin(backlog)
    runs = [[contender.take(is_idle=True) for contender in contenders] for _ in range(pairs)]
    for number, contender in enumerate(contenders):
        took = [each[number] for each in runs]
        times = median(each[number].seconds / each[0].seconds for each in runs)
        console.print(
            f"Start: {contender.title}: {median(run.seconds for run in took):.2f} s, {times:.2f} times that of cdc; "
            f"{median(run.cpu for run in took):.2f} CPU s",
            highlight=False,
        )
        contender.end()
    console.print()
