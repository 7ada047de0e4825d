"""What every target of tables has to pass, for those of this program and for those that others write.

    from cdc.testing import conformance

    @pytest.mark.parametrize("check", conformance.checks(ABILITIES), ids=str)
    def test_my_target(check, tmp_path):
        check(conformance.Place(ABILITIES, make=lambda mode: MyTarget(tmp_path / "x", mode)))

Each check is given an empty place, drives a target there with segments, as a pipeline would, and compares what it holds
with what a model in plain Python says. What the target says that it cannot do (`cdc.target.TargetAbilities`) is not
passed over: the checks want it to be refused by name. They need nothing but this package; how they are run is their
caller's affair. Some of them fork, so that no thread that matters may run beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from cdc.target import Mode, TargetAbilities
from cdc.testing.conformance import comparing, copying, following, holding, refusing, remembering
from cdc.testing.conformance.driver import Driver
from cdc.testing.conformance.place import Place as Place
from cdc.testing.conformance.place import Texts as Texts

_Body = Callable[[Driver, Random], None]

_ALWAYS: tuple[_Body, ...] = (
    following.follows,
    following.changes_shape,
    following.gets_up_again,
    copying.copies_again,
    holding.holds_values,
    holding.finds_rows_by_any_key,
    holding.takes_any_name,
    holding.sees_case,
)
_OF_COMPARABLE: tuple[_Body, ...] = (
    copying.copies_by_parts,
    copying.doubts,
    copying.replaces,
    comparing.says_what_it_holds,
    comparing.decides_conditions,
)
_OF_DURABLE: tuple[_Body, ...] = (
    following.survives_being_killed,
    following.has_a_lease,
    refusing.leaves_others_alone,
)
_AT_RANDOM: tuple[_Body, ...] = (
    following.follows,
    following.changes_shape,
    following.gets_up_again,
    following.survives_being_killed,
    copying.copies_again,
    copying.copies_by_parts,
    copying.replaces,
    holding.takes_any_name,
    remembering.remembers,
)


@dataclass(frozen=True)
class Check:
    """One thing that a target has to do, in one mode.

    Attributes:
        mode: how the tables are kept.
        seed: of the choices at random.
    """

    body: _Body
    mode: Mode
    seed: int

    def __str__(self) -> str:
        return f"{self.mode}-{self.body.__name__}-{self.seed}"

    def __call__(self, place: Place) -> None:
        """Hold the target at a place, which is empty, to it; raises AssertionError, or what the target raises."""
        with Driver(place, self.mode) as driver:
            self.body(driver, Random(f"{self.body.__name__} {self.seed}"))


def checks(abilities: TargetAbilities, *, rounds: int = 1, seed: int = 0) -> list[Check]:
    """All that a target has to do which can do this much.

    Args:
        rounds: how often each check is made that chooses at random.
        seed: of the first round's choices.
    """
    found = []
    for mode in Mode:
        for body in _bodies(abilities, mode):
            found += [Check(body, mode, seed + number) for number in range(rounds if body in _AT_RANDOM else 1)]
    return found


def _bodies(abilities: TargetAbilities, mode: Mode) -> Iterator[_Body]:
    if mode not in abilities.modes:
        yield refusing.refuses_mode
        return
    yield from _ALWAYS
    yield holding.counts_equal_rows if mode in abilities.keyless else refusing.refuses_keyless_tables
    if mode is Mode.HISTORY:
        yield remembering.remembers
    if abilities.notices_drift:
        yield copying.refuses_drift
    if abilities.compares:
        yield from _OF_COMPARABLE
    if abilities.is_durable:
        yield from _OF_DURABLE
    if len(abilities.modes) > 1:
        yield refusing.keeps_its_mode
