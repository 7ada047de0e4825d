"""The process that serves, as a child of the one that writes: started with the pipeline, and again when it has ended.

This is all of `cdc.serve` that the process of a pipeline loads.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import time
from errno import EADDRINUSE
from pathlib import Path

from cdc.engine.pipeline import Pipeline
from cdc.engine.views import ServingView
from cdc.errors import UsageError
from cdc.options import Serving
from cdc.serve.access import Access
from cdc.serve.address import Address, Protocol, address_of, bound, refuse_open
from cdc.whereabouts import own_socket

log = logging.getLogger(__name__)

_LOOKS_EVERY = 0.2  # seconds
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds before it is started again
_LIVES_WELL = 60.0  # seconds after which the next end is a new mishap
_ENDS_WITHIN = 5.0
_FREED_WITHIN = 6.0  # seconds: the child of a run that was killed, or is being ended, may still have the address
_PACKAGES = {Protocol.PG: "pygwire", Protocol.FLIGHT: "google.protobuf"}


def socket_of(target: str, name: str) -> Path:
    """Where the process that serves a target's copy takes requests of `cdc.serve.forward`."""
    return own_socket(target, name).with_suffix(".http")


class Child:
    """Keeps the process that serves alive for as long as a pipeline runs.

    Args:
        file: the published copy, which need not be there yet.
        own_socket: where it takes requests of this process.

    Raises:
        UsageError: an address, what guards it, or a package is not as it has to be, or somebody else listens there.
    """

    def __init__(self, pipeline: Pipeline, file: Path, serving: Serving, own_socket: Path) -> None:
        addresses = [address_of(text) for text in serving.addresses]
        access = Access.of(dict(os.environ), serving.certificate, serving.key)
        access.tls()
        refuse_open(addresses, access)
        for address in addresses:
            package = _PACKAGES.get(address.protocol)
            if package is not None and not _is_installed(package):
                raise UsageError(f"{address} needs {package}.", hint="pip install 'pygwire>=0.2' 'protobuf>=6.33.5'")
            _refuse_taken(address)
        self._pipeline = pipeline
        self._command = [sys.executable, "-m", "cdc", "serve", str(file.absolute()), *map(str, addresses)]
        self._command += ["--memory", f"{serving.memory >> 20}MB", "--timeout", f"{serving.seconds:g}s"]
        if serving.certificate is not None and serving.key is not None:
            self._command += ["--tls-cert", str(serving.certificate), "--tls-key", str(serving.key)]
        self._command += ["--own-socket", str(own_socket), "--parent", str(os.getpid())]
        self._seen = ServingView([str(address) for address in addresses])
        self._say()

    def follow(self) -> None:
        """Keep it alive until the pipeline ends."""
        wait = _FIRST_WAIT
        while self._pipeline.is_running:
            began = time.monotonic()
            # In a session of its own, so that a terminal's Ctrl-C ends the pipeline, which then ends this.
            try:
                with subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
                    self._seen.pid = process.pid
                    self._say()
                    self._attend(process, began)
                end = f"has ended {_how(process.returncode)}"
            except OSError as error:  # as where the system has no room for another process: the pipeline goes on
                end = f"cannot be started: {error.strerror}"
            self._seen.pid = None
            if self._is_over():
                break
            wait = _FIRST_WAIT if time.monotonic() - began > _LIVES_WELL else min(2 * wait, _LONGEST_WAIT)
            self._seen.restarts += 1
            self._seen.problem = f"The process that serves readers {end}."
            log.warning("%s It is started again in %.1f s.", self._seen.problem, wait)
            self._say()
            self._pipeline.rest(wait)
        self._say()

    def _attend(self, process: subprocess.Popen[bytes], began: float) -> None:
        while self._pipeline.is_running and process.poll() is None:
            if self._seen.problem is not None and time.monotonic() - began > _LIVES_WELL:
                self._seen.problem = None
                self._say()
            self._pipeline.rest(_LOOKS_EVERY)
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()

    def _is_over(self) -> bool:
        return not self._pipeline.is_running

    def _say(self) -> None:
        self._pipeline.view().serving = self._seen


def _refuse_taken(address: Address) -> None:
    """Raise UsageError if nobody could listen at an address, before anything is made."""
    until = time.monotonic() + _FREED_WITHIN
    while True:
        try:
            bound(address).close()
            return
        except OSError as error:
            if error.errno != EADDRINUSE or time.monotonic() > until:
                raise UsageError(
                    f"{address} cannot be listened at: {error.strerror}.",
                    hint="Another program may listen there (`ss -ltnp`): end it, or give --serve another port.",
                ) from error
        time.sleep(_LOOKS_EVERY)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _how(code: int | None) -> str:
    return f"by signal {-code}, perhaps for want of memory" if code is not None and code < 0 else f"with {code}"
