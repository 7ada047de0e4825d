"""What choices at random begin with. Each commit has its own, so that a run of the tests tells of the commit and not of
its luck, and many commits see much; `CDC_SEED` gives another, and repeats a run that has failed."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_COMMIT = subprocess.run(
    ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
).stdout
SEED = int(os.environ.get("CDC_SEED") or int(_COMMIT[:7] or "1", 16))


def chosen_at_random() -> random.Random:
    """Choices of a test's own, which say in its output how to have them again."""
    print(f"CDC_SEED={SEED}")
    return random.Random(SEED)


TAKES_ALL = os.environ.get("CDC_CHOICES") == "all"


def some(choices: Sequence[T], count: int, of: str = "") -> list[T]:
    """So many of them, in their order, of which each commit has its own; `CDC_CHOICES=all` gives all of them.

    Args:
        of: what they are for, where others are chosen for something else.
    """
    if TAKES_ALL:
        return list(choices)
    chosen = random.Random(f"{SEED} {of}").sample(range(len(choices)), count)
    return [choices[number] for number in sorted(chosen)]


def one_of(*choices: T) -> list[T]:
    """One of them."""
    return some(choices, 1)
