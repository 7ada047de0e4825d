"""What a process offers to those who operate it, beside the pipelines that it runs."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from cdc.service.address import Address
from cdc.service.notify import Notifier
from cdc.service.observed import ObservedPipeline, ObservedProcess

if TYPE_CHECKING:
    from cdc.service.web import WebServer

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds
_LOOKS_PER_ALERT = 5


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

    def observe(self, source: str, target: str, name: str, max_lag: float) -> ObservedPipeline:
        """A pipeline to look at; `attach` gives it once it is made."""
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
            threading.Thread(target=self._look, name="looks", daemon=True).start()
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

    def _look(self) -> None:
        """Once a second at each pipeline; each source is asked on a thread of its own, since it may let that wait."""
        asked: set[ObservedPipeline] = set()
        for number in itertools.count():
            for observed in self.process.all():
                self._done(observed.look)
                if observed not in asked:
                    asked.add(observed)
                    threading.Thread(target=self._ask, args=(observed,), name="asks", daemon=True).start()
            if self._notifier.has_receivers and number % _LOOKS_PER_ALERT == 0:
                self._done(self._alert)
            if self._end.wait(_LOOK_EVERY):
                return

    def _alert(self) -> None:
        for name, observed in list(self.process.pipelines.items()):
            self._notifier.look(name, observed.report())

    def _ask(self, observed: ObservedPipeline) -> None:
        while not self._end.wait(_LOOK_EVERY):
            if observed.is_due:
                self._done(observed.ask)

    @staticmethod
    def _done(work: Callable[[], None]) -> None:
        """A fault of what only looks must end neither the pipeline nor the looking."""
        try:
            work()
        except Exception as error:
            log.warning("A look at a pipeline has failed: %r", error)
