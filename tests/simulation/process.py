"""The process that is tried: a pipeline whose threads and waits are turns in a world of one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cdc.engine.handoff import Handoff
from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.errors import TargetDrift, Unavailable
from cdc.model.segment import Segment
from cdc.source import Source
from cdc.target import Target
from cdc.testing import Fault
from tests.simulation.world import World

_LATE = (0.05, 0.4, 3.0, 12.0)  # seconds that a slow target takes


class Plan:
    """Which faults a target has, and when. Only so many, so that every schedule ends."""

    def __init__(self, world: World, most: int) -> None:
        self._world = world
        self._left = most
        self.next: Fault | None = None
        self.error: type[Exception] = Unavailable

    def choose(self) -> tuple[float, float]:
        """Choose for the next segment; seconds until it is written, and from then until the answer comes."""
        rng = self._world.rng
        self.next = None
        if self._left and self._world.chance(0.25):
            self._left -= 1
            self.next = rng.choice(list(Fault))
            self._world.coverage[f"fault: {self.next}"] += 1
            # What needs a person ends the run (D-15); the person then finds that nothing was wrong.
            self.error = TargetDrift if self._world.chance(0.2) else Unavailable
        late = rng.choice(_LATE)
        quick = rng.choice([0.0, 0.001, 0.004, 0.02])
        return (late if self.next is Fault.SLOW else quick), (late if self.next is Fault.HOLD else 0.0)

    def faults(self) -> Iterator[Fault | None]:
        while True:
            yield self.next

    def make_error(self) -> Exception:
        return self.error("as planned")


class _Turn:
    """One segment's turn at the applier, which sees it as a hand-off that ends with it."""

    def __init__(self, segment: Segment, answer: Callable[[], None]) -> None:
        self._segments = [segment]
        self._answer = answer

    def take(self) -> Segment | None:
        return self._segments.pop() if self._segments else None

    def applied(self, segment: Segment) -> None:
        self._answer()


class SimulatedPipeline(Pipeline):
    """A pipeline without threads: the reader runs, and the applier has its turns whenever the reader waits."""

    def __init__(
        self,
        make_source: Callable[[], Source],
        make_target: Callable[[], Target],
        world: World,
        plan: Plan,
        **options: Any,
    ) -> None:
        super().__init__(make_source, make_target, **options)
        self._world = world
        self._plan = plan

    def _sleep(self, seconds: float) -> None:
        self._world.coverage["outcome: tried again"] += 1
        self._world.sleep(seconds)

    def _supervise(self, source: Source, stage: Stage, handoff: Handoff) -> None:
        world = self._world
        failures: list[BaseException] = []
        applying: list[Segment] = []
        over: list[bool] = []

        def fail(error: BaseException) -> None:
            if not isinstance(error, Exception):
                raise error
            failures.append(error)
            handoff.stop()

        def begin() -> None:
            if over or applying or not handoff._segments:
                return
            segment = handoff.take()
            if segment is None:
                return
            applying.append(segment)
            before, behind = self._plan.choose()
            world.later(before, lambda: write(segment, behind))

        def write(segment: Segment, behind: float) -> None:
            if over:
                return

            def answer() -> None:
                if behind:
                    world.later(behind, lambda: answered(segment))
                else:
                    answered(segment)

            if not segment.steps and segment.checkpoint is not None:
                world.coverage["outcome: nothing but a position"] += 1
            try:
                turn: Any = _Turn(segment, answer)
                Stage(stage.target, turn, stage.checkpoint, self._applied, self._watch.target).run()
            except BaseException as error:
                applying.clear()
                fail(error)

        def answered(segment: Segment) -> None:
            if over:
                return
            handoff.applied(segment)
            applying.clear()
            world.later(0.0, begin)

        def put(segment: Segment) -> None:
            while handoff.paused and not handoff.stopping:
                world.coverage["outcome: paused"] += 1
                world.wait()
            enqueue(segment)
            if segment.checkpoint is None:
                world.coverage["outcome: part of a transaction"] += 1
            world.later(0.0, begin)

        def drain() -> None:
            while not handoff.idle and not handoff.stopping:
                world.wait()

        def supervise() -> None:
            if over or handoff.stopping:
                return
            if self._stop.is_set() or self._has_arrived(source, handoff):
                handoff.stop()
            world.later(0.02, supervise)

        enqueue = handoff.put
        handoff.put = put  # type: ignore[method-assign]
        handoff.drain = drain  # type: ignore[method-assign]
        supervise()
        try:
            try:
                self._read(source, handoff)
            except Exception as error:
                fail(error)
            while applying or (handoff._segments and not handoff.stopping):
                world.wait()
        finally:
            over.append(True)
        if failures:
            raise failures[0]
