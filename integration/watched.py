"""What the port of a running `cdc` answers (`cdc run --listen`)."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cdc.demo.mysql import Programs
from cdc.demo.private import cache_folder, free_port

_WITHIN = 30.0  # seconds
_AT_ONCE = 2.0


@dataclass(frozen=True)
class Answer:
    code: int
    text: str
    headers: Message


@dataclass
class Port:
    """A port that a process listens at."""

    number: int = field(default_factory=free_port)

    @property
    def option(self) -> tuple[str, str]:
        return "--listen", f"127.0.0.1:{self.number}"

    def get(self, path: str, **headers: str) -> Answer:
        """What it answers, which has to be soon."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.number}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_AT_ONCE) as answer:
                return Answer(answer.status, answer.read().decode(), answer.headers)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), error.headers)

    def until(self, code: int, words: str = "", within: float = _WITHIN) -> str:
        """Wait until /readyz answers with a code and some words; while it does not, the process has to be alive."""
        last: Answer | str = "nothing"
        end = time.monotonic() + within
        while time.monotonic() < end:
            try:
                last = self.get("/readyz")
                assert self.get("/livez").code == 200
            except urllib.error.URLError as error:  # it does not listen yet
                last = str(error)
            else:
                if last.code == code and words in last.text:
                    return last.text
            time.sleep(0.1)
        raise AssertionError(last)

    def report(self, name: str) -> dict[str, Any]:
        """What /status.json has of a pipeline."""
        found: dict[str, Any] = json.loads(self.get("/status.json").text)["pipelines"][name]
        return found

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """What /metrics says, by names."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """The one number of these labels; None if there is none."""
        found = [value for given, value in self.metrics().get(name, []) if labels.items() <= given.items()]
        assert len(found) <= 1, found
        return found[0] if found else None


def wait_for(condition: Callable[[], bool], what: str, within: float = _WITHIN) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def promtool(*arguments: str, said: str = "") -> str:
    """What promtool says, which has to be content."""
    command = Programs("promtool", cache_folder() / "prometheus").command("promtool")
    done = subprocess.run([*command, *arguments], input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
