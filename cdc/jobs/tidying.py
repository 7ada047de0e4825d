"""Tidying up: what a target has to do now and then is done while there is nothing to apply."""

from __future__ import annotations

import logging

from cdc.engine.pipeline import Pipeline
from cdc.engine.stage import Stage, Stopped
from cdc.errors import CdcError, TargetBusy
from cdc.target import Tidied

log = logging.getLogger(__name__)

_EVERY = 3600.0  # seconds
_LOOK_EVERY = 1.0  # seconds between looks whether there is nothing to apply
_PATIENCE = 60.0  # seconds for a pipeline that has lost a connection


def tidy(pipeline: Pipeline) -> None:
    """Tidy up the target of a pipeline, for as long as it runs.

    Raises:
        TargetBusy: another process took the target's lease.
    """
    while pipeline.is_running:
        pipeline.rest(_EVERY)
        try:
            while _wait(pipeline) and pipeline.errand(_once, patience=_PATIENCE):
                pass
        except Stopped:
            return
        except TargetBusy:
            raise
        except CdcError as error:
            log.warning("The target is tidied up later, since this failed: %s", error)


def _wait(pipeline: Pipeline) -> bool:
    """Wait until there is nothing to apply; whether that came before the end of the run."""
    while pipeline.is_running and not pipeline.is_idle:
        pipeline.rest(_LOOK_EVERY)
    return pipeline.is_running


def _once(stage: Stage) -> bool:
    return isinstance(stage.target, Tidied) and stage.target.tidy()
