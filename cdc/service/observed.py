"""Pipelines as the service sees them: what they say of themselves, what their sources say, and what became of that.

A report of a pipeline (`ObservedPipeline.report`) has all that `cdc status --json` has, by the same rules:

    name            of the pipeline
    healthy         no `problems`
    health          green, amber (tables are copied or suspect) or red
    problems        a sentence each
    problems_of_tables  those of them that are about tables that differ or are held
    running, phase  opening, copying, streaming, waiting (for the next try) or stopped
    position        the target's checkpoint, as text
    lag_bytes, lag_seconds
    failure, is_red, remedy
    stall           {stage, doing, since, seconds}
    verification    {finished_at, rows, different {table: rows}, not_compared {table: why}, shapes {table: [what]}}
    slot            of PostgreSQL: {slot, exists, active, wal_status, lag_bytes, retained_bytes, safe_bytes, ...};
                    or `log` of MySQL and MariaDB {file, offset, gtids, oldest_file, bytes}; or `journal` of a feed
                    {journal, first, next, records_behind}; or `source` {error} if it cannot be asked

and beside it:

    ready           no `unready`
    unready         why /readyz is red: the problems with what to do, the feeds' ones, and that the first copy goes on
    origin          {kind, database, asked_at} of the source
    target          without a password
    tables          by name: {state, reason, different, rows_estimated, rows_copied, inserted, updated, deleted,
                    truncated, rows_per_second, copy_seconds_left}
    rows            {copied, estimated, applied, transactions}, in this run
    rows_per_second
    copy_seconds_left
    segments        {count, seconds, bytes}, in this run
    checkpoint_at   seconds since the Unix epoch, as all that end with `_at`
    tries           how often both ends were opened, or were to be
    samples         for a chart, oldest first: [at, lag_seconds, lag_bytes, rows_per_second], MOST_SAMPLES at most
    forecast        {slot_seconds_left, disk_free_bytes, disk_seconds_left}; null for what does not run out
    errors          newest first: {at, message, remedy, times}, MOST_ERRORS at most
    query           whether `/query` of this port answers about the published copy
    feeds           by target, a report each, if the pipeline is a journal that feeds targets

The document of the process (`ObservedProcess.document`) is {version, at, ready, unready, pipelines {name: report}}.
Whatever is not known is null.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdc.connectors import JOURNAL, database_module, kind_of, known_as, source_module, target_module
from cdc.engine.pipeline import Pipeline
from cdc.engine.views import PipelineView
from cdc.errors import CdcError
from cdc.files.disk import no_system_errors
from cdc.logs import without_password
from cdc.model.standing import State
from cdc.service.health import account_of, by_its_account, judged
from cdc.service.pace import Decline, Pace
from cdc.source import SourceStatus
from cdc.version import VERSION

MOST_SAMPLES = 360
SAMPLE_EVERY = 5.0  # seconds
MOST_ERRORS = 20
ASK_EVERY = 10.0  # seconds
_SILENT_FOR = 30.0  # seconds without an answer after which a source counts as one that does not give any
_ALL = ""  # the name of all rows together, which no table has


class ObservedPipeline:
    """One pipeline.

    Args:
        source, target, name: as the user has written them.
        max_lag: seconds that it may be behind.
    """

    def __init__(self, source: str, target: str, name: str, max_lag: float) -> None:
        self.name = name
        self.target = without_password(target)
        self.query_socket: Path | None = None  # of the process that answers about the published copy
        self.feeds: dict[str, ObservedPipeline] = {}  # by what is shown of their targets
        self._feeds: dict[str, ObservedPipeline] = {}  # by their targets
        self._source = source
        self._origin = {"kind": kind_of(source), "database": _database_of(source)}
        self._known_as = known_as(source, target, name)
        self._max_lag = max_lag
        self._folder = _folder_of(target)
        self._pipeline: Pipeline | None = None
        self._has_followed = False
        self._pace, self._copying = Pace(), Pace()
        self._slot_left, self._disk_left = Decline(), Decline()
        self._disk_free: int | None = None
        self._samples: deque[list[float]] = deque(maxlen=MOST_SAMPLES)
        self._errors: deque[dict[str, Any]] = deque(maxlen=MOST_ERRORS)
        self._stopped_at: float | None = None
        self._failed_at: float | None = None
        self._noting = threading.Lock()
        self._answer: SourceStatus | None = None
        self._asked_at: float | None = None
        self._asked_while: bool | None = None  # the log was followed
        self._due_at = 0.0
        self._looked_at = self._answered_at = time.monotonic()

    def attach(self, pipeline: Pipeline) -> None:
        """Look at this pipeline from now on; one that begins again is another one each time. Until it goes on, it is as
        the one before it."""
        if self._pipeline is not None:
            pipeline.come_after(self._pipeline)
        self._pipeline = pipeline

    def feed(self, target: str, journal: str) -> ObservedPipeline:
        """The pipeline that feeds a target from the journal that this one writes."""
        if target not in self._feeds:
            feed = self._feeds[target] = ObservedPipeline(journal, target, self.name, self._max_lag)
            alike = sum(each.target == feed.target for each in self._feeds.values())
            if alike > 1:  # two of one server, say, whose addresses differ in what is not shown
                feed.target += f" ({alike})"
            self.feeds = {each.target: each for each in self._feeds.values()}
        return self._feeds[target]

    @property
    def is_given_up(self) -> bool:
        """Whether it hangs, so that the process is about to end."""
        return self._pipeline is not None and self._pipeline.is_given_up

    @property
    def view(self) -> PipelineView:
        """What it says of itself; nothing yet before it is made."""
        return self._pipeline.view() if self._pipeline is not None else PipelineView()

    @property
    def is_due(self) -> bool:
        """Whether the source is to be asked: every ASK_EVERY seconds, and when it seems to have gone or come back."""
        view = self.view
        is_other = self._asked_while != (view.phase == "streaming")
        return _can_be_asked(view) and (is_other or time.monotonic() >= self._due_at)

    def ask(self) -> None:
        """Ask the source. May take as long as the source lets it wait."""
        self._asked_while = self.view.phase == "streaming"
        answer: SourceStatus
        try:
            with no_system_errors():
                answer = source_module(self._source).source_status(self._source, self._known_as, None, None)
        except CdcError as error:
            problem = f"The source cannot be asked: {error.message}"
            answer = SourceStatus("source", problem, None, False, {"error": error.message}, {})
        self._answer, self._asked_at, self._answered_at = answer, time.time(), time.monotonic()
        self._due_at = self._answered_at + ASK_EVERY
        if "safe_bytes" in answer.details:
            left = answer.details["safe_bytes"]
            self._slot_left.see(time.monotonic(), left if isinstance(left, int) else None)

    def look(self) -> None:
        """Take note of how it is now; called about once a second."""
        view, now = self.view, time.monotonic()
        if not _can_be_asked(view):
            self._answered_at = now
        self._has_followed |= view.phase == "streaming"
        tables = {str(table): entry for table, entry in list(view.tables.items())}
        changed = {
            name: entry.rows_copied + entry.inserted + entry.updated + entry.deleted for name, entry in tables.items()
        }
        self._pace.see(now, changed | {_ALL: view.rows_copied + view.rows_applied})
        self._copying.see(now, {name: entry.rows_copied for name, entry in tables.items()} | {_ALL: view.rows_copied})
        self._note_failure(view)
        self._sample(view)
        if self._folder is not None:
            self._disk_free = _free(self._folder)
            self._disk_left.see(now, self._disk_free)
        self._looked_at = time.monotonic()

    def _note_failure(self, view: PipelineView) -> None:
        at, message = view.failed_at, view.failure
        with self._noting:
            if at is None or message is None or at == self._failed_at:
                return
            self._failed_at = at
            if self._errors and self._errors[0]["message"] == message:
                self._errors[0] |= {"at": at, "times": self._errors[0]["times"] + 1}
            else:
                self._errors.appendleft({"at": at, "message": message, "remedy": view.remedy, "times": 1})

    def _sample(self, view: PipelineView) -> None:
        """The worst of each few seconds."""
        sample = [time.time(), view.lag_seconds, view.lag_bytes, self._pace.per_second(_ALL)]
        last = self._samples[-1] if self._samples else None
        if last is None or sample[0] - last[0] >= SAMPLE_EVERY:
            self._samples.append(sample)
        else:
            last[1:] = [max(pair) for pair in zip(last[1:], sample[1:], strict=True)]

    def report(self) -> dict[str, Any]:
        """How it is now."""
        view = self.view
        self._note_failure(view)
        said = account_of(view)
        if view.phase != "stopped":
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = time.time()
        found = self._found()
        account = {"name": self.name, **by_its_account(said, said, self._stopped_at)}
        report = judged(account, found, self._max_lag, unobserved=self._unobserved())
        feeds = {target: feed.report() for target, feed in list(self.feeds.items())}
        unready = [_with_remedy(text, report) for text in report["problems"]]
        unready += self._not_followed(view)
        unready += [f"{target}: {text}" for target, feed in feeds.items() for text in feed["unready"]]
        return report | {
            "ready": not unready,
            "unready": unready,
            "origin": self._origin | {"asked_at": self._asked_at},
            "target": self.target,
            "tables": {name: self._table(name, entry) for name, entry in said["tables"].items()},
            "rows": {
                "copied": view.rows_copied,
                "estimated": sum(entry["rows_estimated"] for entry in said["tables"].values()),
                "applied": view.rows_applied,
                "transactions": view.transactions_applied,
            },
            "rows_per_second": self._pace.per_second(_ALL),
            "copy_seconds_left": self._copy_seconds_left(said["tables"]),
            "segments": {"count": view.segments, "seconds": view.segment_seconds, "bytes": view.segment_bytes},
            "checkpoint_at": view.checkpoint_at,
            "tries": view.tries,
            "query": self.query_socket is not None and self.query_socket.exists(),
            "samples": [list(sample) for sample in self._samples],
            "forecast": {
                "slot_seconds_left": self._slot_left.seconds_left,
                "disk_free_bytes": self._disk_free,
                "disk_seconds_left": self._disk_left.seconds_left,
            },
            "errors": [dict(error) for error in self._errors],
            "feeds": feeds,
        }

    def _found(self) -> SourceStatus:
        """What the source has said last, unless that is old: it may be silent, or what asks it may have ended. How far
        the target is behind is known better from the pipeline itself."""
        silent = time.monotonic() - self._answered_at
        if silent > ASK_EVERY + _SILENT_FOR:
            problem = f"The source cannot be asked: there was no answer for {silent:.0f} s."
            return SourceStatus("source", problem, None, False, {"error": problem}, {})
        return self._answer or SourceStatus("source", None, None, False, {"error": None}, {})

    def _unobserved(self) -> str | None:
        """That the looks have ended, or that one hangs, as at a file system that does not answer: what they have found
        is old, and must not pass for how it is."""
        silent = time.monotonic() - self._looked_at
        return f"Nothing has looked at the pipeline for {silent:.0f} s" if silent > _SILENT_FOR else None

    def _not_followed(self, view: PipelineView) -> Iterator[str]:
        """A table that has not been copied is not there for those who read it."""
        if self._has_followed or view.phase in ("streaming", "stopped"):
            return
        if view.phase == "copying":
            yield "The tables are being copied for the first time."
        else:
            yield "The log is not followed yet."

    def _table(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {
            "rows_per_second": self._pace.per_second(name),
            "copy_seconds_left": _seconds_left(entry, self._copying.per_second(name)),
        }

    def _copy_seconds_left(self, tables: dict[str, Any]) -> float | None:
        copied = [entry for entry in tables.values() if entry["state"] == State.COPYING]
        if not copied:
            return None
        left = sum(max(0, entry["rows_estimated"] - entry["rows_copied"]) for entry in copied)
        pace = self._copying.per_second(_ALL)
        return left / pace if pace else None


class ObservedProcess:
    """All pipelines of this process, by name."""

    def __init__(self) -> None:
        self.pipelines: dict[str, ObservedPipeline] = {}

    def add(self, pipeline: ObservedPipeline) -> None:
        """Look at a pipeline as well; it may have feeds later."""
        self.pipelines[pipeline.name] = pipeline

    def document(self) -> dict[str, Any]:
        """How all of them are."""
        reports = {name: pipeline.report() for name, pipeline in list(self.pipelines.items())}
        is_one = len(reports) == 1
        unready = [
            text if is_one else f"{name}: {text}" for name, report in reports.items() for text in report["unready"]
        ]
        if not reports:
            unready = ["No pipeline has begun."]
        return {
            "version": VERSION,
            "at": time.time(),
            "ready": not unready,
            "unready": unready,
            "pipelines": reports,
        }

    def query_socket(self, name: str) -> Path | None:
        """Of the process that answers about the published copy of a pipeline; None if nobody is to be asked here."""
        pipeline = self.pipelines.get(name)
        return pipeline.query_socket if pipeline is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether no stage hangs, which only the end of the process can solve. This never waits."""
        return not any(pipeline.is_given_up for pipeline in self.all())

    def all(self) -> list[ObservedPipeline]:
        """The pipelines and their feeds."""
        found = list(self.pipelines.values())
        return [*found, *(feed for pipeline in found for feed in list(pipeline.feeds.values()))]


def _can_be_asked(view: PipelineView) -> bool:
    """Not before the first copy has begun: there is no slot."""
    return bool(view.segments) or view.phase not in ("opening", "copying")


def _with_remedy(problem: str, report: dict[str, Any]) -> str:
    """A problem that is a failure, with what to do about it."""
    is_the_failure = report["failure"] is not None and report["failure"].removesuffix(".") in problem
    return f"{problem} {report['remedy']}" if is_the_failure and report["remedy"] else problem


def _seconds_left(entry: dict[str, Any], pace: float) -> float | None:
    if entry["state"] != State.COPYING or not pace:
        return None
    return max(0, int(entry["rows_estimated"]) - int(entry["rows_copied"])) / pace


def _database_of(source: str) -> str | None:
    return None if kind_of(source) == JOURNAL else database_module(source).database_of(source)


def _folder_of(target: str) -> Path | None:
    """The folder whose file system a target fills; None for a server."""
    module, place = target_module(target)
    file = module.file_of(place)
    return file.absolute() if file is not None else None


def _free(path: Path) -> int | None:
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
