"""What a process offers to those who operate it, beside the pipelines that it runs."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from cdc.service.address import Address
from cdc.service.observed import ASK_EVERY, ObservedPipeline, ObservedProcess

if TYPE_CHECKING:
    from cdc.service.web import WebServer

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # seconds


class Service:
    """Looks at the pipelines of this process, and answers about them. Without an address it does nothing.

    Args:
        listen: where it answers.
    """

    def __init__(self, listen: Address | None) -> None:
        self.process = ObservedProcess()
        self._listen = listen
        self._web: WebServer | None = None
        self._end = threading.Event()
        self._looks: threading.Thread | None = None

    def observe(self, source: str, target: str, name: str, max_lag: float) -> ObservedPipeline:
        """A pipeline to look at, which is told to it by `attach` once it is made."""
        observed = ObservedPipeline(source, target, name, max_lag)
        self.process.add(observed)
        return observed

    def __enter__(self) -> Service:
        """Listen.

        Raises:
            UsageError: nothing can listen at that address.
        """
        if self._listen is None:
            return self
        listening = self._listen.bind()
        # Half of a second of start-up, for those who listen.
        from cdc.service.web import WebServer  # noqa: PLC0415

        address = Address(self._listen.host, listening.getsockname()[1])
        self._web = WebServer(self.process, address, listening)
        self._looks = threading.Thread(target=self._look, name="looks", daemon=True)
        self._looks.start()
        self._web.start()
        log.info("Listening at http://%s", address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._web is not None:
            self._web.stop()

    def _look(self) -> None:
        """Once a second at each pipeline; each source is asked on a thread of its own, since it may let that wait."""
        asked: set[ObservedPipeline] = set()
        while True:
            for observed in self.process.all():
                observed.look()
                if observed not in asked:
                    asked.add(observed)
                    threading.Thread(target=self._ask, args=(observed,), name="asks", daemon=True).start()
            if self._end.wait(_LOOK_EVERY):
                return

    def _ask(self, observed: ObservedPipeline) -> None:
        while True:
            observed.ask()
            if self._end.wait(ASK_EVERY):
                return
