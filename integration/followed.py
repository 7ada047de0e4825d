"""A `cdc run` that listens, for those who look at what it answers."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.processes import Process, start


class Followed:
    """A run in a process of its own.

    Args:
        folder: for what it says.
        arguments: of `cdc run`.
    """

    def __init__(self, folder: Path, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        self._log = folder / "said"
        with self._log.open("a") as log:
            self.process: Process = start("run", *arguments, "--listen", listen, log=log)
        self.url = self._listens()

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(60)

    def status(self) -> dict[str, Any]:
        """The document of the process."""
        with urllib.request.urlopen(f"{self.url}/status.json", timeout=30) as answer:
            document: dict[str, Any] = json.load(answer)
        return document

    def report(self) -> dict[str, Any]:
        """The report of its one pipeline."""
        (report,) = self.status()["pipelines"].values()
        return report

    def until(self, is_so: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """The first report of which something is so."""
        end = time.monotonic() + seconds
        while not is_so(report := self.report()):
            assert time.monotonic() < end, report
            time.sleep(0.2)
        return report

    def _listens(self) -> str:
        for _ in range(600):
            found = re.findall(r"Listening at (http://\S+)", self._log.read_text())
            if found:
                return str(found[-1])
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"it does not listen: {self._log.read_text()}")
