"""Several pipelines in one process: what ends one of them does not end the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from cdc.cli.process import Prepared, Wanted, prepare
from cdc.cli.view import watch
from cdc.engine.pipeline import Pipeline
from cdc.errors import EXIT_RESTARTABLE, CdcError, Stalled
from cdc.files.disk import meaning_of
from cdc.logs import Thread, name_pipelines, of_pipeline
from cdc.service.observed import ObservedPipeline

log = logging.getLogger(__name__)

_FIRST_AGAIN_IN = 1.0  # seconds
_LONGEST_AGAIN_IN = 60.0
_FINE_AFTER = 60.0  # seconds that a run has lasted, after which its end counts as the first one
_LOOK_EVERY = 0.1


class Together:
    """Runs that begin and end with the process.

    A supervisor would start a process again that has ended with 1, and leave one alone that has ended with 3. So does
    this with each run, but for one that is to end by itself. Meanwhile the status of that pipeline is red.

    Args:
        wanted: each with what looks at its pipelines.
        say_stopped: called with the name of one that has ended for good, and the reason.

    Raises:
        UsageError: a DSN or an option of one of them is wrong; none of them has begun.
    """

    def __init__(
        self, wanted: Sequence[tuple[Wanted, ObservedPipeline]], say_stopped: Callable[[str, Exception], None]
    ) -> None:
        self._members = [_Member(each, observed, say_stopped) for each, observed in wanted]

    def pipelines(self) -> dict[str, Pipeline]:
        """By name; one that begins again is another one."""
        return {member.name: member.pipeline for member in self._members}

    def stop(self) -> None:
        """Ask all of them to end at their next commit; may be called from anywhere."""
        for member in self._members:
            member.stop()

    def run(self) -> None:
        """Run until all have ended.

        Raises:
            CdcError: what has ended one of them for good: the one with the greatest exit code.
        """
        name_pipelines()
        threads = [Thread(target=member.follow, name=f"run {member.name}") for member in self._members]
        for thread in threads:
            thread.start()
        for thread in threads:  # never without a limit: signals are handled between two looks
            while thread.is_alive():
                thread.join(_LOOK_EVERY)
        failed = [member.failure for member in self._members if member.failure is not None]
        if hung := [error for error in failed if isinstance(error, Stalled)]:
            raise hung[0]  # what it holds is free only when the process has ended
        if failed:
            raise max(failed, key=lambda error: error.exit_code if isinstance(error, CdcError) else EXIT_RESTARTABLE)


class _Member:
    """One of them, from its first try to its last."""

    def __init__(
        self, wanted: Wanted, observed: ObservedPipeline, say_stopped: Callable[[str, Exception], None]
    ) -> None:
        self.name = wanted.options.name
        self.failure: Exception | None = None
        self._wanted = wanted
        self._observed = observed
        self._say_stopped = say_stopped
        self._run: Prepared = prepare(wanted, observed)
        self._stop = threading.Event()

    @property
    def pipeline(self) -> Pipeline:
        return self._run.watched.pipeline

    def stop(self) -> None:
        self._stop.set()
        self._run.stop()

    def follow(self) -> None:
        """Run, and run again after what may pass. What has ended it for good is its `failure` afterwards."""
        with of_pipeline(self.name):
            self._follow()

    def _follow(self) -> None:
        again_in = _FIRST_AGAIN_IN
        while True:
            began = time.monotonic()
            self.failure = self._failure_of_one_run()
            if self.failure is None or self._is_final(self.failure) or self._stop.is_set():
                break
            if time.monotonic() - began > _FINE_AFTER:
                again_in = _FIRST_AGAIN_IN
            log.error("%s It begins again in %.0f s.", _said(self.failure), again_in)
            if self._stop.wait(again_in):
                break
            again_in = min(2 * again_in, _LONGEST_AGAIN_IN)
        if self.failure is not None:
            self._say_stopped(self.name, self.failure)
        if isinstance(self.failure, CdcError):
            log.error("%s It has ended; the others go on.", _said(self.failure))
            self.failure.message = f"Pipeline {self.name}: {self.failure.message}"
        elif self.failure is not None:
            log.error("It has ended; the others go on.", exc_info=self.failure)

    def _failure_of_one_run(self) -> Exception | None:
        try:
            if self.failure is not None:  # what was refused at first may be refused now
                self._run = prepare(self._wanted, self._observed)
            run = self._run
            if self._stop.is_set():  # the run before may be the one that was asked to end
                return self.failure
            run.run(lambda _: watch([run.watched], None))
        except OSError as error:
            return meaning_of(error)
        except Exception as error:  # of this run alone, whatever it is
            return error
        return None

    def _is_final(self, error: Exception) -> bool:
        if not isinstance(error, CdcError) or isinstance(error, Stalled):
            return True
        return error.exit_code != EXIT_RESTARTABLE or self._wanted.options.until_caught_up


def _said(error: Exception) -> str:
    hint = f" {error.hint}" if isinstance(error, CdcError) and error.hint else ""
    return f"{error}{hint}"
