"""What is said again and again is said less and less."""

from __future__ import annotations

import logging
import re

from cdc.logs import Repetitions, without


class Night:
    """Lines that pass, at times that a test chooses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = Repetitions(lambda: self.now)
        self.lines: list[str] = []

    def say(self, level: int, message: str, *values: object) -> None:
        record = logging.LogRecord("cdc", level, "", 0, message, values, None)
        if self.filter.filter(record):
            self.lines.append(record.getMessage())


def test_an_error_every_second_for_eight_hours() -> None:
    """E-09: a line a minute, and none of them goes uncounted."""
    night = Night()
    for second in range(8 * 3600):
        night.now = second
        night.say(logging.WARNING, "%s is gone. Trying again in %.1f s.", "the server", second % 7 / 3)
    assert 480 <= len(night.lines) < 490
    counted = [int(found[1]) for line in night.lines if (found := re.search(r"and (\d+) like it", line))]
    assert 8 * 3600 - 60 <= len(night.lines) + sum(counted) <= 8 * 3600


def test_what_is_new_is_said_at_once() -> None:
    """E-09: another text, a later time, and whatever is no warning."""
    night = Night()
    for number in range(1000):
        night.say(logging.WARNING, f"table t{'x' * (number % 50)} was changed")
    assert len(night.lines) == 250
    night.now = 3600
    night.say(logging.WARNING, "table t was changed")
    assert night.lines[-1] == "table t was changed"
    for number in range(10):
        night.say(logging.INFO, "lag %d", number)
    assert len(night.lines) == 261


def test_it_remembers_a_bounded_number_of_texts() -> None:
    """E-09."""
    night = Night()
    for number in range(2000):
        night.say(logging.WARNING, "x" * number)
    assert len(night.filter._kinds) <= 200


def test_secrets_are_hidden_whole() -> None:
    """O49: a part of a longer word is no secret, and hidden it would tell a short one."""
    assert without('password authentication failed for user "app"', "a", "app2") == (
        'password authentication failed for user "app"'
    )
    assert without("bad DSN postgresql://u:pw.$1@h/d (pw.$1)", "pw.$1") == "bad DSN postgresql://u:***@h/d (***)"
    assert without("secretary of secret", "secret", None, "") == "secretary of ***"
