"""One source into several targets: it is written into a journal, and each target is fed from there at its own pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from cdc.engine.pipeline import Pipeline
from cdc.errors import CdcError
from cdc.logs import Thread, without_password

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.05  # seconds
_AGAIN_IN = 5.0  # seconds


class FanOut:
    """A pipeline into a journal, and one from it into each target. None waits for another one.

    Args:
        writer: the pipeline from the source into the journal.
        feeds: by the target's name, the function that makes the pipeline that feeds it. Its argument says whether that
            pipeline is to end once everything is applied that the journal has.
        until_caught_up: the writer ends by itself, and the targets follow up to there.
    """

    def __init__(
        self, writer: Pipeline, feeds: Mapping[str, Callable[[bool], Pipeline]], *, until_caught_up: bool
    ) -> None:
        self.writer = writer
        self._failed: dict[str, BaseException] = {}
        self._make = feeds
        self._until_caught_up = until_caught_up
        self._feeds: dict[str, Pipeline] = {}
        self._changed = threading.Lock()
        self._stopping = False

    @property
    def failures(self) -> dict[str, BaseException]:
        """By target, what its feed has failed with and not recovered from. The others go on."""
        return {name: error for name, error in self._failed.items() if not self._is_open(name)}

    def _is_open(self, name: str) -> bool:
        return name in self._feeds and self._feeds[name].is_open

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

    def _start(self, *, until_caught_up: bool) -> list[Thread]:
        self._stopping = False
        threads = [
            Thread(target=self._feed, args=(name, until_caught_up), name=f"feed {without_password(name)}")
            for name in self._make
        ]
        for thread in threads:
            thread.start()
        return threads

    def _feed(self, name: str, until_caught_up: bool) -> None:
        while not (until_caught_up or self.writer.is_open or self._stopping):  # there may be no journal before
            time.sleep(_LOOK_EVERY)
        while True:
            try:
                if (feed := self._made(name, until_caught_up)) is None:
                    return
                feed.run()
            except BaseException as error:  # a target that fails is no reason for the others to end
                is_tried_again = not until_caught_up and isinstance(error, CdcError)
                self._note(name, error, is_tried_again=is_tried_again)
                if not is_tried_again:
                    return
                self._wait()
            else:
                self._failed.pop(name, None)
                return

    def _made(self, name: str, until_caught_up: bool) -> Pipeline | None:
        """A pipeline that feeds a target; None if all are asked to end."""
        with self._changed:
            if self._stopping:
                return None
            feed = self._feeds[name] = self._make[name](until_caught_up)
            return feed

    def _note(self, name: str, error: BaseException, *, is_tried_again: bool) -> None:
        """Say what a target has failed with, unless that is what it has failed with before."""
        if str(self._failed.get(name)) != str(error):
            said = f" {error.hint}" if isinstance(error, CdcError) and error.hint else ""
            how = "just now" if is_tried_again else "any more"
            again = f" It is tried again every {_AGAIN_IN:.0f} s." if is_tried_again else ""
            log.error("%s is not fed %s: %s%s%s", without_password(name), how, error, said, again)
        self._failed[name] = error

    def _wait(self) -> None:
        """Somebody may read the file for a moment, or mend what is wrong with the target (O11, O33)."""
        until = time.monotonic() + _AGAIN_IN
        while time.monotonic() < until and not self._stopping:
            time.sleep(_LOOK_EVERY)

    def _stop_feeds(self) -> None:
        with self._changed:
            self._stopping = True
            for feed in self._feeds.values():
                feed.stop()
