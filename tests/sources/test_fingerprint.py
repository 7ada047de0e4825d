"""What of the catalog's changes leaves a table certain."""

from __future__ import annotations

import pytest

from cdc.sources.postgres.fingerprint import Change, Fingerprint, Look, change, changed_types

Facts = dict[int, dict[str, str]]

ENUM = {"kind": "e", "label 1": "sad", "label 2": "ok"}
PAIR = {"kind": "c", "attribute 1": "23 -1", "attribute 2": "25 -1"}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("1:10 2:20", None),
        ("1:10 2:21", Change(frozenset(), went=False, rewritten=True)),
        ("1:10", Change(frozenset(), went=True, rewritten=False)),
        ("1:10 2:20 3:30 4:40", Change(frozenset({3, 4}), went=False, rewritten=False)),
        ("2:21 3:30", Change(frozenset({3}), went=True, rewritten=True)),
        ("", Change(frozenset(), went=True, rewritten=False)),
    ],
)
def test_how_files_change(now: str, expected: Change | None) -> None:
    """P5, P6: leaves that came, went, or were written again."""
    assert change(Fingerprint("1:10 2:20", 3, 5), Fingerprint(now, 4, 6)) == expected


@pytest.mark.parametrize(
    ("was", "now", "is_changed"),
    [
        (ENUM, {**ENUM, "label 3": "glad"}, False),  # ADD VALUE
        (ENUM, {**ENUM, "label 1": "blue"}, True),  # RENAME VALUE
        (ENUM, {"kind": "e", "label 2": "ok"}, True),
        ({"kind": "e"}, ENUM, False),
        (PAIR, {**PAIR, "attribute 3": "20 -1"}, True),
        (PAIR, {"kind": "c", "attribute 2": "25 -1"}, True),
        ({"kind": "c"}, PAIR, True),
        (PAIR, {**PAIR, "attribute 1": "20 -1"}, True),
        (PAIR, PAIR, False),
        (None, PAIR, True),  # it may have been another one a moment ago
        (None, ENUM, True),
        (None, {"kind": "d", "base": "23 -1"}, False),
    ],
)
def test_how_types_change(was: dict[str, str] | None, now: dict[str, str], is_changed: bool) -> None:
    """P4: only a label that is added to an enum leaves all values as they read."""
    assert changed_types({7: was} if was is not None else {}, {7: now}) == ({7} if is_changed else set())


def test_types_inside_of_types() -> None:
    """P4: a table is concerned however deep the type lies in those of its columns."""
    seen = Look(
        uses={1: frozenset({20}), 2: frozenset({30, 40}), 3: frozenset({40})},
        parts={20: {0, 21}, 21: {22, 23}, 22: {0}, 23: {21}, 30: {22}, 40: {0}},
        called={20: "_pair", 21: "pair", 22: "mood", 23: "tree", 30: "mood_range", 40: "cents"},
    )
    assert seen.users({22}) == {1: ["mood"], 2: ["mood"]}
    assert seen.users({22, 40}) == {1: ["mood"], 2: ["cents", "mood"], 3: ["cents"]}
