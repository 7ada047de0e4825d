"""One schedule from a seed: a source with a history, a process that may die, a target that may fail.

At every step: no more is acknowledged to the source than what is durable in the target, and the target's tables are
exactly those of the source at the target's checkpoint. In the end: everything has arrived, and nothing came twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from cdc.errors import OperatorNeeded, Unavailable, UsageError
from cdc.model.change import Op
from cdc.model.position import Checkpoint
from cdc.source import Source
from cdc.target import Target
from cdc.testing import FaultyTarget
from tests.simulation.process import Plan, SimulatedPipeline
from tests.simulation.targets import Memory, Probed
from tests.simulation.world import Crash, World


class Server(Protocol):
    """What a schedule needs of a scripted server."""

    durable: Callable[[], int]
    history: Any

    def is_over(self) -> bool:
        """Whether all of the history has happened."""

    def expected(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Columns and sorted rows of each table at a checkpoint, None for one that is not copied yet."""

    def waiting_since(self, checkpoint: Checkpoint, order: int) -> float | None:
        """The virtual second of the first commit after a place, None if no commit is there by now.

        Args:
            checkpoint: a checkpoint of the pipeline whose place it is.
        """

    def has_all(self, checkpoint: Checkpoint) -> bool:
        """Whether all of the history lies before a checkpoint."""

    def check_changes(self, changes: list[tuple[int, int, Op, int]], checkpoint: Checkpoint) -> None:
        """Assert that the changes that a target had by then are all there were, each once."""

    def source(self, budget: int) -> Source:
        """Another source of a pipeline."""


class Schedule:
    """One run of one seed.

    Args:
        skew: seconds by which this machine's clock differs from the source's, None for any.
    """

    def __init__(
        self,
        seed: str,
        make_server: Callable[[World, int, int], Server],
        make_target: Callable[[], Probed] = Memory,
        *,
        skew: float | None = None,
    ) -> None:
        random.seed(seed)  # the waits between tries are random
        rng = random.Random(seed)
        some = rng.choice([-600.0, 0.0, 600.0])
        self.world = World(rng, some if skew is None else skew)
        self.server = make_server(self.world, rng.randint(2, 9), rng.choice([0, 1, 3, 6]))
        self.target = make_target()
        self.plan = Plan(self.world, rng.choice([0, 2, 5]))
        self.budget = rng.choice([150, 500, 3000, 1 << 20])
        self.queue = rng.choice([40, 300, 3000, 1 << 20])
        self.crashes = rng.choice([0, 1, 2, 4])
        self._checked: Checkpoint | None = None
        self.lags: list[tuple[int, float]] = []

    @property
    def coverage(self) -> Counter[str]:
        return self.world.coverage + self.server.history.coverage

    def run(self) -> Counter[str]:
        """Run it to its end; what it covered."""
        world, target = self.world, self.target
        self.server.durable = lambda: target.checkpoint.position.order if target.checkpoint else 0
        while not self._has_arrived():
            self._start()
            world.sleep(world.rng.choice([0.0, 0.5, 40.0]))
        checkpoint = target.checkpoint
        assert checkpoint is not None
        if target.changes is not None:
            self.server.check_changes(target.changes, checkpoint)
        world.coverage["outcome: everything arrived"] += 1
        return self.coverage

    def _has_arrived(self) -> bool:
        checkpoint = self.target.checkpoint
        if checkpoint is None or not self.server.is_over() or not self.server.has_all(checkpoint):
            return False
        return None not in self.server.expected(checkpoint).values()

    def _start(self) -> None:
        """One life of the process."""
        world = self.world
        world.is_dead = False
        if self.crashes and world.chance(0.8):
            self.crashes -= 1
            world.crash_at = world.steps + world.rng.choice([3, 10, 40, 200, 800]) + world.rng.randint(0, 30)
        pipeline = SimulatedPipeline(
            lambda: self.server.source(self.budget),
            self._open_target,
            world,
            self.plan,
            queue_bytes=self.queue,
            until_caught_up=world.chance(0.5),
        )
        self._watch(pipeline)
        world.checks = [self.check_target, lambda: self.check_view(pipeline)]
        try:
            pipeline.run()
            world.coverage["outcome: ended"] += 1
        except Crash:
            world.coverage["outcome: crashed"] += 1
        except (Unavailable, UsageError):
            world.coverage["outcome: gave up"] += 1  # at a first start
        except OperatorNeeded as error:
            if str(error) != "as planned":
                raise
            world.coverage["outcome: stopped for a person"] += 1
        world.crash_at = None
        world.checks = [self.check_target]

    def _open_target(self) -> Target:
        return FaultyTarget(self.target, self.plan.faults(), sleep=lambda _: None, error=self.plan.make_error)

    def _watch(self, pipeline: SimulatedPipeline) -> None:
        """Stop it once everything has arrived, or at some moment (D-18)."""
        world = self.world
        until = world.time + world.rng.choice([0.1, 1.0, 10.0]) if world.chance(0.2) else 1e9

        def look() -> None:
            if pipeline.view().phase == "stopped" or world.is_dead:
                return
            if world.time > until or self._has_arrived():
                world.coverage["outcome: asked to stop"] += 1
                pipeline.stop()
                return
            world.later(0.3, look)

        world.later(0.3, look)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check_target(self) -> None:
        """The target is what the source was at its checkpoint: whole transactions and nothing else."""
        checkpoint = self.target.checkpoint
        if checkpoint is self._checked or checkpoint is None:
            return
        if self._checked is not None:
            assert checkpoint.position >= self._checked.position, "the checkpoint went back"
        self._checked = checkpoint
        held = self.target.held()
        for name, known in self.server.expected(checkpoint).items():
            assert known is None or held[name] == known, f"{name} at {checkpoint.position}"

    def check_view(self, pipeline: SimulatedPipeline) -> None:
        """The lag is of the source's clock: no more than what is not durable is old, and nothing if all is (E-02)."""
        view, checkpoint = pipeline.view(), self.target.checkpoint
        if view.phase != "streaming" or view.durable is None or checkpoint is None:
            return
        waiting = self.server.waiting_since(checkpoint, view.durable.order)
        if (view.lag_bytes, view.lag_seconds) != self.lags[-1:]:
            self.lags.append((view.lag_bytes, view.lag_seconds))
        age = self.world.time - waiting if waiting is not None else 0.0
        assert view.lag_seconds <= age + 1.0, "it says to be later than it is"  # the binlog's clock has full seconds
        self.world.coverage["view: late"] += view.lag_seconds > 2.0
