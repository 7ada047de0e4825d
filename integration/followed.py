"""A `cdc run` that listens, for those who look at what it answers."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.processes import Process, start
from integration.watched import Port


class Followed:
    """A run in a process of its own.

    Args:
        folder: for what it says.
        arguments: of `cdc run`.
        port: where it listens.
    """

    def __init__(self, folder: Path, *arguments: str, port: Port | None = None) -> None:
        self.port = port or Port()
        with (folder / "said").open("a") as log:
            self.process: Process = start("run", *arguments, *self.port.option, log=log)
        self._until_it_listens()

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.number}"

    def status(self) -> dict[str, Any]:
        """The document of the process."""
        document: dict[str, Any] = json.loads(self.port.get("/status.json").text)
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

    def _until_it_listens(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, "it has ended"
            try:
                self.port.get("/livez")
            except urllib.error.URLError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("it does not listen")
