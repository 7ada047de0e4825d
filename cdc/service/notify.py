"""Sends alerts to people: through the services that the library apprise knows, or to a command.

Each receiver has a thread of its own, so that one that is slow or hangs keeps neither the pipeline nor another receiver
waiting. What a receiver's URL is stays out of messages and logs, since it has passwords in it.
"""

from __future__ import annotations

import logging
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import orjson

from cdc.errors import UsageError
from cdc.service.alerts import SLOT_WITHIN, Alert, Alerts, Condition, Event

log = logging.getLogger(__name__)

COMMAND_SECONDS = 30.0  # that a command may take
LAST_WORD_SECONDS = 10.0  # that the end of a process waits for its alerts
_WAITING_MOST = 100  # alerts; a receiver that has so many to come gets no more
_AGAIN_AFTER = (5.0, 30.0)  # seconds; between the tries to send one alert
_MOST_CHARACTERS = 4_000  # of a message, in a command's environment, which has little room
_GOOD = {Event.RECOVERED}
_BAD = {Event.UNHEALTHY, Event.STOPPED}


class Receiver(Protocol):
    """Where alerts go."""

    name: str
    """For log lines; has no secrets."""

    def send(self, alert: Alert) -> str | None:
        """Send one, which may take a while; what went wrong, if something did. It may also raise whatever it likes."""


class AppriseService:
    """A service that apprise knows.

    Args:
        url: as apprise writes it (`slack://...`, `mailto://...`, `json://...`), with the service's secrets.
        number: which of the URLs it is, from 1, by which people find it.

    Raises:
        UsageError: it is no such URL, or apprise is not there.
    """

    def __init__(self, url: str, number: int) -> None:
        try:
            import apprise  # noqa: PLC0415 - takes a tenth of a second and 20 MB
        except ImportError:
            raise UsageError(
                "--notify needs the package apprise, which is not there.",
                hint="pip install 'apprise>=2.0'",
            ) from None
        # Its warnings may name hosts and paths of a URL, which can be secrets.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._apprise = apprise
        service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if service is None:
            scheme = url.partition("://")[0] if "://" in url else ""
            named = f" ({scheme}://...)" if scheme.isalnum() else ""
            raise UsageError(
                f"apprise does not know what URL number {number} of --notify{named} is.",
                hint="https://appriseit.com/services/ lists them. A command may be easier: --notify-command COMMAND",
            )
        self._service = service
        self.name = f"{service.service_name} (URL number {number} of --notify)"

    def send(self, alert: Alert) -> str | None:
        kinds = self._apprise.NotifyType
        kind = kinds.SUCCESS if alert.event in _GOOD else kinds.FAILURE if alert.event in _BAD else kinds.WARNING
        title = f"cdc {alert.pipeline}: {alert.event}"
        text = self._apprise.NotifyFormat.TEXT  # a table may be called <b>
        is_sent = self._service.notify(body=alert.message, title=title, notify_type=kind, body_format=text)
        return None if is_sent else "it did not take it"


class Command:
    """A program that is run for each alert: the alert as JSON on its standard input, and in its environment
    CDC_EVENT, CDC_PIPELINE and CDC_MESSAGE.

    Args:
        command: the program and its arguments; no shell looks at them.
        seconds: that it may take before it is killed with what it has begun.

    Raises:
        UsageError: there is no such program.
    """

    def __init__(self, command: str, seconds: float = COMMAND_SECONDS) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError:
            self._words = []
        if not self._words:
            raise UsageError("--notify-command is not a command.", hint="Write it as in a shell, with quotes that end.")
        if shutil.which(self._words[0]) is None:
            raise UsageError(
                f"--notify-command names the program {self._words[0]!r}, which is not there or may not be run.",
                hint="Give its whole path. A line for a shell is: --notify-command \"sh -c '...'\"",
            )
        self._seconds = seconds
        self.name = f"the command {self._words[0]!r}"

    def send(self, alert: Alert) -> str | None:
        environment = {
            "CDC_EVENT": alert.event.value,
            "CDC_PIPELINE": alert.pipeline,
            "CDC_MESSAGE": alert.message[:_MOST_CHARACTERS],
        }
        try:
            process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # both may be a terminal with a live line
                stderr=subprocess.DEVNULL,
                env=os.environ | environment,
                start_new_session=True,
            )
        except OSError as error:
            return f"it could not be run: {error.strerror}"
        try:
            process.communicate(orjson.dumps(asdict(alert)), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"it took longer than {self._seconds:.0f} s"
        return None if process.returncode == 0 else f"it ended with {process.returncode}"


@dataclass(frozen=True, slots=True)
class NotifyOptions:
    """Who gets alerts.

    Attributes:
        urls: of services, as apprise writes them.
        command: a program that is run for each alert.
        slot_within: seconds; how early the loss of a slot is announced.
    """

    urls: tuple[str, ...] = ()
    command: str | None = None
    slot_within: float = SLOT_WITHIN

    def receivers(self) -> list[Receiver]:
        """Those that alerts go to.

        Raises:
            UsageError: one of them is not right.
        """
        services = [AppriseService(url, number) for number, url in enumerate(self.urls, 1)]
        return [*services, *([Command(self.command)] if self.command is not None else [])]


class Notifier:
    """Makes alerts of what pipelines report, and hands them to receivers. It does not wait for them."""

    def __init__(self, receivers: Sequence[Receiver], slot_within: float = SLOT_WITHIN) -> None:
        self._slot_within = slot_within
        self._alerts: dict[str, Alerts] = {}
        self._stopped: set[str] = set()
        self._posts = [_Post(receiver) for receiver in receivers]

    @property
    def has_receivers(self) -> bool:
        """Whether anybody wants alerts."""
        return bool(self._posts)

    def look(self, pipeline: str, report: Mapping[str, Any]) -> None:
        """Send what is due by a report (`cdc.service.observed`) of a pipeline and its feeds; called every few s."""
        if pipeline in self._stopped:
            return
        for target, feed in report["feeds"].items():
            self.look(f"{pipeline} ({target})", feed)
        for alert in self._of(pipeline).look(Condition.of(report), time.monotonic()):
            self.send(alert)

    def stopped(self, pipeline: str, message: str) -> None:
        """Send that a run has ended because only a person may decide what happens next. It sends nothing more."""
        self._stopped.add(pipeline)
        self.send(self._of(pipeline).stopped(message))

    def _of(self, pipeline: str) -> Alerts:
        return self._alerts.setdefault(pipeline, Alerts(pipeline, self._slot_within))

    def send(self, alert: Alert) -> None:
        """Send an alert to all receivers, as soon as each has taken those before it."""
        for post in self._posts:
            post.put(alert)

    def close(self, seconds: float = LAST_WORD_SECONDS) -> None:
        """Wait for what is on its way, for so long at most."""
        until = time.monotonic() + seconds
        for post in self._posts:
            post.close()
        for post in self._posts:
            post.join(until - time.monotonic())


class _Post:
    """The thread that serves one receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._alerts: queue.Queue[Alert | None] = queue.Queue(_WAITING_MOST)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"notify {receiver.name}", daemon=True)
        self._thread.start()

    def put(self, alert: Alert | None) -> None:
        try:
            self._alerts.put_nowait(alert)
        except queue.Full:
            log.warning("An alert was not sent to %s, which has %d waiting.", self._receiver.name, _WAITING_MOST)

    def close(self) -> None:
        self._is_closed.set()
        self.put(None)

    def join(self, seconds: float) -> None:
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            log.warning("%s has not taken its alerts before the end.", self._receiver.name)

    def _run(self) -> None:
        while (alert := self._alerts.get()) is not None:
            self._deliver(alert)

    def _deliver(self, alert: Alert) -> None:
        """Try a few times; once this is closed, a last time at once."""
        for wait in (*_AGAIN_AFTER, 0.0):
            is_last = wait == 0 or self._is_closed.is_set()
            trouble = self._sent(alert)
            if trouble is None:
                return
            log.warning("The alert %r was not sent to %s: %s.", alert.event.value, self._receiver.name, trouble)
            if is_last:
                return
            self._is_closed.wait(wait)

    def _sent(self, alert: Alert) -> str | None:
        try:
            return self._receiver.send(alert)
        except Exception as error:  # whatever it is, the next alert is to be sent; its text may have secrets
            return type(error).__name__
