"""Publishing: a copy of a target's file is renewed again and again, for those who read while the pipeline writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage
from cdc.engine.views import PublicationView
from cdc.errors import CdcError, InvariantError
from cdc.files.disk import no_system_errors
from cdc.target import Copying, Publication, Settling

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.2  # seconds between looks whether the pipeline follows the log


class Publisher:
    """Renews the copy of one pipeline's target.

    Args:
        every: seconds between the beginnings of two copies.
        refuse_foreign: raises UsageError if there is a copy that is of another pipeline.
    """

    def __init__(
        self, pipeline: Pipeline, publication: Publication, every: float, refuse_foreign: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._publication = publication
        self._every = every
        self._refuse_foreign = refuse_foreign
        self._seen = PublicationView(str(publication.file), every)
        self._say(self._seen)

    def follow(self) -> None:
        """Publish for as long as the pipeline runs, and once more when it has ended as it should."""
        while self._pipeline.is_running:
            if self._pipeline.view().phase != "streaming":
                self._pipeline.rest(_LOOK_EVERY)
                continue
            due = time.monotonic() + self._every
            self._attempt(is_open=True)
            self._pipeline.rest(due - time.monotonic())
        if self._pipeline.has_closed:
            self._attempt(is_open=False)

    def _attempt(self, *, is_open: bool) -> None:
        try:
            with no_system_errors():
                self._publish(is_open=is_open)
        except CdcError as error:
            if is_open and not self._pipeline.is_running:
                return  # it has ended meanwhile, and the last copy is still to be made
            if error.message != self._seen.problem:
                log.warning("%s is not renewed: %s", self._publication.file, error)
            self._say(replace(self._seen, problem=error.message))

    def _publish(self, *, is_open: bool) -> None:
        if self._seen.at is not None and not self._publication.has_news:
            self._say(replace(self._seen, at=time.time(), problem=None))
            return
        if self._publication.is_replaced:
            self._refuse_foreign()
        began = time.monotonic()
        with self._publication.begin() as copying:
            position = self._take_open(copying) if is_open else self._take_closed(copying)
            at = time.time()
            copying.keep()
        self._publication.note_kept()
        seconds = time.monotonic() - began
        late = f"It took {seconds:.1f} s, and is to be renewed every {self._every:g} s." if is_open else ""
        self._say(
            replace(
                self._seen,
                at=at,
                position=position,
                seconds=seconds,
                pause=copying.pause,
                written=copying.written,
                size=copying.size,
                problem=late if seconds > self._every and late else None,
            )
        )

    def _take_open(self, copying: Copying) -> str | None:
        def take(stage: Stage) -> str | None:
            if not isinstance(stage.target, Settling):
                raise InvariantError("The target is not one file, so it cannot be copied.")
            stage.target.settle()
            copying.take(stage.alive)
            self._publication.note()
            return stage.checkpoint.position.text if stage.checkpoint is not None else None

        return self._pipeline.errand(take)

    def _take_closed(self, copying: Copying) -> str | None:
        with self._publication.at_rest():
            copying.take(lambda: None)
        durable = self._pipeline.view().durable
        return durable.text if durable is not None else None

    def _say(self, view: PublicationView) -> None:
        self._seen = view
        self._pipeline.view().publication = view
