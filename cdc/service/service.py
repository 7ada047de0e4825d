"""What a process offers to those who operate it, beside the pipelines that it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from cdc.logs import Thread, of_pipeline
from cdc.service.address import Address
from cdc.service.notify import Notifier
from cdc.service.observed import ObservedPipeline, ObservedProcess

if TYPE_CHECKING:
    from cdc.service.web import WebServer

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds
_ALERT_EVERY = 5.0


class Service:
    """Looks at the pipelines of this process, answers about them and sends alerts. Without an address and without
    receivers of alerts it does nothing.

    Args:
        listen: where it answers.
        notifier: sends alerts.
    """

    def __init__(self, listen: Address | None, notifier: Notifier) -> None:
        self.process = ObservedProcess()
        self._listen = listen
        self._notifier = notifier
        self._web: WebServer | None = None
        self._end = threading.Event()
        self._asked: set[ObservedPipeline] = set()  # each has a thread that asks its source

    def observe(self, source: str, target: str, name: str, max_lag: float) -> ObservedPipeline:
        """What looks at a pipeline; `attach` gives it the pipeline once that is made."""
        observed = ObservedPipeline(source, target, name, max_lag)
        self.process.add(observed)
        return observed

    def __enter__(self) -> Service:
        """Listen.

        Raises:
            UsageError: nothing can listen at that address.
        """
        if self._listen is not None:
            self._web = self._listening(self._listen)
        if self._web is not None or self._notifier.has_receivers:
            Thread(target=self._repeat, args=(self._look, _LOOK_EVERY), name="looks", daemon=True).start()
        if self._notifier.has_receivers:  # apart from the looks: that one of them hangs is an alert as well
            Thread(target=self._repeat, args=(self._alert, _ALERT_EVERY), name="alerts", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._notifier.close()
        if self._web is not None:
            self._web.stop()

    def _listening(self, listen: Address) -> WebServer:
        listening = listen.bind()
        # Half of a second of start-up, for those who listen.
        from cdc.service.web import WebServer  # noqa: PLC0415

        address = Address(listen.host, listening.getsockname()[1])
        web = WebServer(self.process, address, listening)
        web.start()
        log.info("Listening at http://%s", address)
        return web

    def _repeat(self, work: Callable[[], None], every: float) -> None:
        while not self._end.is_set():
            _done(work)
            self._end.wait(every)

    def _look(self) -> None:
        """At each pipeline; each source is asked on a thread of its own, since it may let that wait."""
        for observed in self.process.all():
            with of_pipeline(observed.name):
                _done(observed.look)
                if observed not in self._asked:
                    Thread(target=self._ask, args=(observed,), name="asks", daemon=True).start()
                    self._asked.add(observed)

    def _alert(self) -> None:
        for name, observed in list(self.process.pipelines.items()):
            with of_pipeline(name):
                _done(partial(self._alert_of, name, observed))

    def _alert_of(self, name: str, observed: ObservedPipeline) -> None:
        self._notifier.look(name, observed.report())

    def _ask(self, observed: ObservedPipeline) -> None:
        while not self._end.wait(_LOOK_EVERY):
            if observed.is_due:
                _done(observed.ask)


def _done(work: Callable[[], None]) -> None:
    """A fault of what only looks must end neither the pipeline nor the looking. What was not seen becomes old, which
    makes the pipeline unhealthy (`ObservedPipeline.report`)."""
    try:
        work()
    except Exception as error:
        log.warning("A look at a pipeline has failed: %r", error, exc_info=log.isEnabledFor(logging.DEBUG))
