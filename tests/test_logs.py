"""Log lines: their form, which of them are written, and that what is said again and again is said less and less."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable

import pytest

from cdc.logs import (
    Form,
    Level,
    Repetitions,
    Settings,
    Thread,
    configure,
    name_pipelines,
    of_pipeline,
    without,
    without_password,
)

log = logging.getLogger("cdc.test")


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


def lines_of(settings: Settings, say: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to standard error with these settings."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure(settings)
    try:
        say()
    finally:
        configure(Settings())
    return out.getvalue().splitlines()


def test_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a message holds, it is one line, and its parts have names."""

    def say() -> None:
        try:
            raise ValueError("broken\nin two")
        except ValueError:
            log.exception("a %s\x1b[31m\nb", "name\u2028")

    (line,) = lines_of(Settings(form=Form.JSON), say, monkeypatch)
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    assert said.pop("exception").startswith("Traceback (most recent call last):\n")
    assert said == {
        "level": "error",
        "logger": "cdc.test",
        "message": "a name\u2028\x1b[31m\nb",
        "thread": "MainThread",
    }


def test_a_line_says_of_which_pipeline_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of a thread of a thread of it, while another pipeline runs beside it."""

    def work() -> None:
        thread = Thread(target=lambda: log.info("inner"), name="inner")
        thread.start()
        thread.join()
        log.info("outer")

    def say() -> None:
        threads = []
        for name in ("shop", "sales"):
            with of_pipeline(name):
                threads.append(Thread(target=work, name="outer"))
                threads[-1].start()
        for thread in threads:
            thread.join()
        log.info("none")

    said = [json.loads(line) for line in lines_of(Settings(form=Form.JSON), say, monkeypatch)]
    assert sorted((line.get("pipeline", ""), line["message"], line["thread"]) for line in said) == [
        ("", "none", "MainThread"),
        ("sales", "inner", "inner"),
        ("sales", "outer", "outer"),
        ("shop", "inner", "inner"),
        ("shop", "outer", "outer"),
    ]


def test_lines_of_several_pipelines_begin_with_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all threads of a pipeline: it is the same mechanism that gives lines of JSON their field."""

    def work() -> None:
        thread = Thread(target=lambda: log.info("inner"), name="inner")
        thread.start()
        thread.join()
        log.warning("outer")

    def say() -> None:
        with of_pipeline("shop"):
            outer = Thread(target=work)
            outer.start()
            outer.join()
        log.info("none")

    monkeypatch.setattr("cdc.logs._names_pipelines", False)
    assert [line.partition(" ")[2] for line in lines_of(Settings(), say, monkeypatch)] == [
        "INFO inner",
        "WARNING outer",
        "INFO none",
    ]
    name_pipelines()
    assert [line.partition(" ")[2] for line in lines_of(Settings(), say, monkeypatch)] == [
        "INFO [shop] inner",
        "WARNING [shop] outer",
        "INFO none",
    ]


def test_what_one_pipeline_repeats_is_new_of_another_one() -> None:
    """E-09: they share a process, and not their troubles."""
    night = Night()
    for name in ("shop", "sales"):
        with of_pipeline(name):
            for _ in range(100):
                night.say(logging.WARNING, "the server is gone")
    assert len(night.lines) == 10


def test_addresses_are_shown_without_what_may_be_a_password() -> None:
    """E-03."""
    assert without_password("clickhouse://u:p@w/?#@h/db?password=x") == "clickhouse://h/db"
    assert without_password("ducklake:postgresql://u:p@h/db?data=s3://b") == "ducklake:postgresql://h/db"
    assert without_password("duckdb:a@b.duckdb") == "duckdb:a@b.duckdb"


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        (Settings(level=Level.DEBUG), "debug info warning error"),
        (Settings(), "info warning error"),
        (Settings(level=Level.WARNING), "warning error"),
        (Settings(level=Level.ERROR), "error"),
        (Settings(is_quiet=True), "error"),
        (Settings(level=Level.DEBUG, is_quiet=True), "error"),
    ],
)
def test_what_is_written(settings: Settings, levels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def say() -> None:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            log.log(level, "x")

    assert " ".join(line.split()[1].lower() for line in lines_of(settings, say, monkeypatch)) == levels


def test_lines_of_json_are_said_less_often_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """E-09."""

    def say() -> None:
        for number in range(100):
            log.warning("the server is gone for %d s", number)

    assert len(lines_of(Settings(form=Form.JSON), say, monkeypatch)) == 5
