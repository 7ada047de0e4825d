"""`cdc` as a process of its own, without the second of CPU that an interpreter takes to import everything.

Each is forked from a server of `multiprocessing` that has imported all of `cdc`. It has a PID and standard streams of
its own, and signals and kills are real ones. How an interpreter begins and ends is all that it does not show: the tests
that start `COMMAND` are there for that.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import IO, Any, Self
from unittest import mock

import cdc as program

COMMAND = (sys.executable, "-m", "cdc")  # as a user starts it

_LONGEST = 86400.0  # seconds that anything may take
# Of libraries, what is loaded when it is first used, where there is such a module in their version.
_LOADED_LATE = ("typer", "typer._adapters", "typer.rich_utils", "rich.markdown", "rich.traceback", "rich.live")
_LOADED_LATE += ("rich.progress", "rich.table", "numpy.ma", "sqlglot.dialects.duckdb", "sqlglot.dialects.mysql")
# NumPy and Arrow would start threads when they are loaded, which a fork leaves behind.
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Process:
    """A `cdc` that runs: in all that is here it is like a `subprocess.Popen` of text.

    Attributes:
        stdout: what it writes.
        stderr: what it says; None if that goes to a file.
    """

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: IO[Any] | None) -> None:
        out, write_out = os.pipe()
        error, write_error = os.pipe() if log is None else (None, os.dup(log.fileno()))
        self.stdout: IO[str] = os.fdopen(out)
        self.stderr: IO[str] | None = None if error is None else os.fdopen(error)
        self._readers: list[_Reader] = []
        with Connection(write_out, readable=False) as write, Connection(write_error, readable=False) as say:
            everything = (arguments, os.environ | environment, os.getcwd(), write, say)
            self._process = _forking().Process(target=_main, args=everything, daemon=True)
            self._process.start()
        self.pid = self._process.pid or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired("cdc", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it writes and says from now on, until it ends; raises subprocess.TimeoutExpired."""
        until = time.monotonic() + (timeout or _LONGEST)
        self._readers = self._readers or [_Reader(stream) for stream in (self.stdout, self.stderr)]
        for reader in self._readers:
            reader.join(until - time.monotonic())
            if reader.is_alive():
                raise subprocess.TimeoutExpired("cdc", timeout or 0)
        self.wait(until - time.monotonic())
        out, error = self._readers
        return out.text, error.text

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Reader(threading.Thread):
    """Reads a stream to its end."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.text = ""
        self.start()

    def run(self) -> None:
        if self._stream is not None:
            self.text = self._stream.read()
            self._stream.close()


def start(*arguments: str, log: IO[Any] | None = None, **environment: str) -> Process:
    """Start `cdc` with these arguments.

    Args:
        log: a file for what it says, in place of a pipe.
        environment: variables beside those of this process.
    """
    return Process(arguments, environment, log)


def cdc(*arguments: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `cdc` with these arguments until it ends, which it has to do in so many seconds."""
    process = start(*arguments, **environment)
    try:
        out, error = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"cdc {arguments} has not ended:\n{process.communicate()}") from None
    return subprocess.CompletedProcess(arguments, process.wait(), out, error)


@cache
def _forking() -> ForkServerContext:
    """What forks, with all modules of `cdc`."""
    context = multiprocessing.get_context("forkserver")
    names = [module.name for module in pkgutil.walk_packages(program.__path__, "cdc.")]
    ours = [name for name in names if name != "cdc.__main__" and not name.startswith("cdc.cli")]  # it loads one command
    context.set_forkserver_preload([*ours, *_LOADED_LATE, __name__])
    with mock.patch.dict(os.environ, _NO_THREADS):
        forkserver.ensure_running()
    return context


def _main(
    arguments: tuple[str, ...], environment: dict[str, str], folder: str, write: Connection, say: Connection
) -> None:
    """What `python -m cdc` does, in a process that was forked."""
    assert len(os.listdir("/proc/self/task")) == 1
    os.dup2(write.fileno(), 1)
    os.dup2(say.fileno(), 2)
    write.close()
    say.close()
    os.chdir(folder)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that are run by nohup ignore it
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cdc", *arguments]
    # Which reads the environment when it is imported.
    from cdc import faults
    from cdc.cli import main

    faults._armed.update(faults.parse(os.environ.get(faults._ENVIRONMENT, "")))
    main()
