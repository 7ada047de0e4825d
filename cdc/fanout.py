"""One source into several targets: it is written into a journal, and each target is fed from there at its own pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from cdc.errors import CdcError
from cdc.pipeline import Pipeline

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.05  # seconds


class FanOut:
    """A pipeline into a journal, and one from it into each target. None waits for another one.

    Args:
        writer: the pipeline from the source into the journal.
        feeds: by the target's name, what makes the pipeline that feeds it; it is told whether that is to end once
            everything is applied that the journal has.
        until_caught_up: the writer ends by itself, and the targets follow up to there.

    Attributes:
        failures: of the feeds that have ended for good. The others go on.
    """

    def __init__(
        self, writer: Pipeline, feeds: Mapping[str, Callable[[bool], Pipeline]], *, until_caught_up: bool
    ) -> None:
        self.writer = writer
        self.failures: dict[str, BaseException] = {}
        self._make = feeds
        self._until_caught_up = until_caught_up
        self._feeds: dict[str, Pipeline] = {}
        self._changed = threading.Lock()
        self._stopping = False

    def stop(self) -> None:
        """Ask all of them to end at their next commit; may be called from anywhere."""
        self.writer.stop()

    def run(self, meanwhile: Callable[[threading.Thread], None]) -> None:
        """Run until the writer ends, and then until each target is where it is to be.

        Args:
            meanwhile: what this thread does while the writer runs on another one (`Pipeline.run_beside`).

        Raises:
            CdcError: what ended the writer; or else what ended the first of the targets that has failed.
        """
        is_done = False
        threads = self._start(until_caught_up=False)
        try:
            self.writer.run_beside(meanwhile)
            is_done = True
        finally:
            self._stop_feeds()
            for thread in threads:
                thread.join()
        if is_done and self._until_caught_up:
            for thread in self._start(until_caught_up=True):
                thread.join()
        for failure in self.failures.values():
            raise failure

    def _start(self, *, until_caught_up: bool) -> list[threading.Thread]:
        self._stopping = False
        wanted = [name for name in self._make if name not in self.failures]
        threads = [
            threading.Thread(target=self._feed, args=(name, until_caught_up), name=f"feed {name}") for name in wanted
        ]
        for thread in threads:
            thread.start()
        return threads

    def _feed(self, name: str, until_caught_up: bool) -> None:
        try:
            while not (until_caught_up or self.writer.is_open or self._stopping):  # there may be no journal before
                time.sleep(_LOOK_EVERY)
            with self._changed:
                if self._stopping:
                    return
                feed = self._feeds[name] = self._make[name](until_caught_up)
            feed.run()
        except BaseException as error:  # a target that fails is no reason for the others to end
            self.failures[name] = error
            said = f" {error.hint}" if isinstance(error, CdcError) and error.hint else ""
            log.error("%s is not fed any more: %s%s", name, error, said)

    def _stop_feeds(self) -> None:
        with self._changed:
            self._stopping = True
            for feed in self._feeds.values():
                feed.stop()
