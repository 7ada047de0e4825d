"""What /metrics says: one table of metrics, each with what it means and what to do about it.

All of them are read from the reports of `cdc.service.observed` when Prometheus asks. Names follow its conventions: base
units, and `_total` for what only grows. A counter begins again at 0 with the process, and with each new try of a feed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdc.model.standing import State
from cdc.service.readings import (
    Read,
    differences,
    of_segments,
    of_tables,
    one,
    source_up,
    table_states,
    tables_by_state,
    total_of_verification,
    truth,
    which,
)

PHASES = ("opening", "copying", "streaming", "waiting", "stopped")
WAL_STATUSES = ("reserved", "extended", "unreserved", "lost")
PIPELINE = ("pipeline", "target")  # the labels of all metrics but those of the process


class Kind(StrEnum):
    """The types of Prometheus that are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus has it.
        kind: its type.
        labels: its own, beside those of the pipeline.
        meaning: what it is, in a sentence; a number that is not known is left out.
        advice: what to do when it moves.
        read: finds it in a report; None for what the client library knows of the process.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    advice: str
    read: Read | None


METRICS = (
    Metric(
        "cdc_pipeline_ready",
        Kind.GAUGE,
        (),
        "1 if /readyz would be green for this pipeline alone, otherwise 0.",
        "Read /readyz, or `cdc status SOURCE TARGET`: each reason is a sentence.",
        truth(lambda report: report["ready"]),
    ),
    Metric(
        "cdc_pipeline_up",
        Kind.GAUGE,
        (),
        "1 while the pipeline runs, also while it waits for its next try; 0 once it has stopped.",
        "A process that waits for an operator has stopped pipelines: the log has the message and its hint.",
        truth(lambda report: report["running"]),
    ),
    Metric(
        "cdc_pipeline_phase",
        Kind.GAUGE,
        ("phase",),
        f"1 for the phase that it is in, 0 for the others: {', '.join(PHASES)}.",
        "waiting for longer than a minute or two: see cdc_pipeline_failing.",
        which(PHASES, lambda report: report["phase"]),
    ),
    Metric(
        "cdc_pipeline_failing",
        Kind.GAUGE,
        (),
        "1 while something fails that is tried again, or has ended the pipeline.",
        "The message and its remedy are in the log, in `errors` of /status.json, and in `cdc status`.",
        truth(lambda report: report["failure"]),
    ),
    Metric(
        "cdc_pipeline_stalled_seconds",
        Kind.GAUGE,
        (),
        "For how long a stage has had work and has not moved on; 0 if none is so.",
        "At --stall-timeout the process ends (a target has 12 times as long). Look at the server that the stage is of.",
        lambda report: [((), float(report["stall"]["seconds"]) if report["stall"] is not None else 0.0)],
    ),
    Metric(
        "cdc_pipeline_tries_total",
        Kind.COUNTER,
        (),
        "How often both ends were opened, or were to be, since the process began. The first time is one of them.",
        "A rate of more than a few in an hour is a connection that does not hold, or a server that is restarted.",
        one("tries"),
    ),
    Metric(
        "cdc_lag_seconds",
        Kind.GAUGE,
        (),
        "How old the oldest commit is that is not in the target, by the source's clock. In an outage it counts the "
        "time since the source was last heard of: it grows though nothing is known of new commits.",
        "If it grows while rows are applied, the target is too slow for the source: see cdc_segment_apply_seconds.",
        one("lag_seconds"),
    ),
    Metric(
        "cdc_lag_bytes",
        Kind.GAUGE,
        (),
        "Bytes of the source's log between what was read of it and what the target has.",
        "As cdc_lag_seconds. A large transaction counts until all of it is applied.",
        one("lag_bytes"),
    ),
    Metric(
        "cdc_checkpoint_timestamp_seconds",
        Kind.GAUGE,
        (),
        "When the target got its checkpoint, in this run; seconds since the Unix epoch.",
        "It stands still while the source has nothing to say. Together with a lag it means that the target is stuck.",
        one("checkpoint_at"),
    ),
    Metric(
        "cdc_rows_applied_total",
        Kind.COUNTER,
        (),
        "Row changes of the log that are durable in the target.",
        "Its rate is the work that the source makes.",
        one("rows", "applied"),
    ),
    Metric(
        "cdc_rows_copied_total",
        Kind.COUNTER,
        (),
        "Rows that came from copies of tables and are durable in the target.",
        "It grows after the first copy too, when a table is copied again: the log says why.",
        one("rows", "copied"),
    ),
    Metric(
        "cdc_transactions_applied_total",
        Kind.COUNTER,
        (),
        "Transactions of the log that are durable in the target.",
        "Rows per transaction say whether the source works in large steps or in small ones.",
        one("rows", "transactions"),
    ),
    Metric(
        "cdc_segment_apply_seconds",
        Kind.SUMMARY,
        (),
        "How long the target took for a segment, which is what is applied and committed at a time.",
        "If its mean grows, look at the target: disk, memory (--memory), other users.",
        of_segments("seconds"),
    ),
    Metric(
        "cdc_segment_bytes",
        Kind.SUMMARY,
        (),
        "How large a segment was in memory.",
        "A mean near --segment says that the pipeline catches up with a backlog.",
        of_segments("bytes"),
    ),
    Metric(
        "cdc_tables",
        Kind.GAUGE,
        ("state",),
        f"How many tables are in each state: {', '.join(state.value for state in State)}.",
        "held: changes of that table are skipped until `cdc resync`. suspect: it is being compared with the source.",
        tables_by_state,
    ),
    Metric(
        "cdc_table_state",
        Kind.GAUGE,
        ("table", "state"),
        "1 for the state that a table is in; the other states are left out.",
        "`cdc status` says why a table is not followed.",
        table_states,
    ),
    Metric(
        "cdc_table_rows_total",
        Kind.COUNTER,
        ("table", "operation"),
        "Row changes of a table that are durable in the target, by operation: inserted, updated, deleted.",
        "Which table makes the work.",
        of_tables("inserted", "updated", "deleted"),
    ),
    Metric(
        "cdc_table_truncates_total",
        Kind.COUNTER,
        ("table",),
        "How often a table was emptied by a TRUNCATE.",
        "It is as in the source: nothing has to be done.",
        of_tables("truncated"),
    ),
    Metric(
        "cdc_copy_rows",
        Kind.GAUGE,
        ("table",),
        "Rows of a table that its last copy has brought, in this run.",
        "Compare it with cdc_copy_estimated_rows.",
        of_tables("rows_copied"),
    ),
    Metric(
        "cdc_copy_estimated_rows",
        Kind.GAUGE,
        ("table",),
        "How many rows a table has by the source's own estimate.",
        "An estimate of 0 is one that the source has not made: ANALYZE makes it.",
        of_tables("rows_estimated"),
    ),
    Metric(
        "cdc_copy_remaining_seconds",
        Kind.GAUGE,
        (),
        "How long the copies will take that go on now, at their present rate.",
        "If cdc_slot_remaining_seconds is less, the slot will be lost before: raise max_slot_wal_keep_size.",
        one("copy_seconds_left"),
    ),
    Metric(
        "cdc_source_up",
        Kind.GAUGE,
        (),
        "1 if the source has answered the last question about its log, which is asked every 10 seconds; 0 if not.",
        "Is the server running, and does the network lead to it? The pipeline tries again by itself.",
        source_up,
    ),
    Metric(
        "cdc_slot_retained_bytes",
        Kind.GAUGE,
        (),
        "WAL that PostgreSQL keeps for the pipeline's slot.",
        "It fills the source's disk. `cdc status` says what pins it: often a transaction that was left open.",
        one("slot", "retained_bytes"),
    ),
    Metric(
        "cdc_slot_safe_bytes",
        Kind.GAUGE,
        (),
        "How much more WAL may be written before the slot is in danger; left out without max_slot_wal_keep_size.",
        "Below 0 the server may let go of the log at its next checkpoint, and all tables have to be copied again.",
        one("slot", "safe_bytes"),
    ),
    Metric(
        "cdc_slot_remaining_seconds",
        Kind.GAUGE,
        (),
        "When the slot will be in danger, if safe bytes go on to become fewer as in the last half hour; left out if "
        "they do not.",
        "Raise max_slot_wal_keep_size (ALTER SYSTEM SET, then SELECT pg_reload_conf()), then find out what is slow.",
        one("forecast", "slot_seconds_left"),
    ),
    Metric(
        "cdc_slot_wal_status",
        Kind.GAUGE,
        ("status",),
        f"1 for the slot's wal_status, 0 for the others: {', '.join(WAL_STATUSES)}.",
        "unreserved: the log may be gone soon. lost: it is gone, `cdc teardown` and a new copy are what is left.",
        which(WAL_STATUSES, lambda report: report.get("slot", {}).get("wal_status")),
    ),
    Metric(
        "cdc_log_kept_bytes",
        Kind.GAUGE,
        (),
        "Bytes of binary log that MySQL or MariaDB keeps, for everybody.",
        "The server lets go of it by age (binlog_expire_logs_seconds), whether a pipeline has read it or not.",
        one("log", "bytes"),
    ),
    Metric(
        "cdc_journal_behind_records",
        Kind.GAUGE,
        (),
        "Records that the journal keeps for a feed. The last ones count until others follow them.",
        "A feed that is far behind keeps the journal from letting go of files. cdc_lag_bytes of the feed is exact.",
        one("journal", "records_behind"),
    ),
    Metric(
        "cdc_disk_free_bytes",
        Kind.GAUGE,
        (),
        "Free space where the target's file is; left out for a server.",
        "A full disk ends the run with 3. Nothing is lost: it goes on once there is space.",
        one("forecast", "disk_free_bytes"),
    ),
    Metric(
        "cdc_disk_remaining_seconds",
        Kind.GAUGE,
        (),
        "When that space will be used up, if it goes on to shrink as in the last half hour; left out if it does not.",
        "Make space, or let go of journals sooner (--journal-size).",
        one("forecast", "disk_seconds_left"),
    ),
    Metric(
        "cdc_verification_timestamp_seconds",
        Kind.GAUGE,
        (),
        "When the last verification in the background ended (--verify-every); seconds since the Unix epoch.",
        "If it is older than two intervals, the log says what keeps it.",
        one("verification", "finished_at"),
    ),
    Metric(
        "cdc_verification_rows",
        Kind.GAUGE,
        (),
        "Rows that the last verification has compared.",
        "It should be about what the tables have.",
        one("verification", "rows"),
    ),
    Metric(
        "cdc_verification_different_rows",
        Kind.GAUGE,
        (),
        "Rows that differed in the last verification, in all tables.",
        "Anything but 0 is serious. `cdc verify` says which rows, `cdc repair` reads them again; please report it.",
        total_of_verification("different"),
    ),
    Metric(
        "cdc_verification_table_different_rows",
        Kind.GAUGE,
        ("table",),
        "The same for each table that has such rows.",
        "As cdc_verification_different_rows.",
        differences("different", float),
    ),
    Metric(
        "cdc_verification_table_shape_differences",
        Kind.GAUGE,
        ("table",),
        "How much of a table's shape was not the same in source and target, for each table where something was not.",
        "`cdc verify` says what.",
        differences("shapes", lambda entry: float(len(entry))),
    ),
    Metric(
        "cdc_verification_table_not_compared",
        Kind.GAUGE,
        ("table",),
        "1 for each table that could not be compared.",
        "The reason is in `cdc status`.",
        differences("not_compared", lambda _: 1.0),
    ),
    Metric(
        "process_resident_memory_bytes",
        Kind.GAUGE,
        (),
        "Memory of the process (Linux).",
        "It should stay level. The target's share is set by --memory, the hand-off's by --segment.",
        None,
    ),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, (), "Address space of the process (Linux).", "None.", None),
    Metric(
        "process_cpu_seconds_total",
        Kind.COUNTER,
        (),
        "Time that the process has computed (Linux).",
        "Small commits take at most --live-cpu of a core.",
        None,
    ),
    Metric(
        "process_start_time_seconds",
        Kind.GAUGE,
        (),
        "When the process began (Linux); seconds since the Unix epoch.",
        "A new value is a restart.",
        None,
    ),
    Metric(
        "process_open_fds", Kind.GAUGE, (), "Files and sockets that are open (Linux).", "It should stay level.", None
    ),
    Metric("process_max_fds", Kind.GAUGE, (), "How many may be open (Linux).", "`ulimit -n` raises it.", None),
)


def markdown() -> str:
    """The page of all metrics (docs/metrics.md)."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` says with `cdc run --listen`, in the order in which it says it. All but those of the process "
        "have the labels",
        "`pipeline` and `target`. A number that is not known, or that a source or a target does not have, is left out.",
        "This page is made from `cdc/service/metrics.py`.",
    ]
    for metric in METRICS:
        labels = f", by {' and '.join(f'`{label}`' for label in metric.labels)}" if metric.labels else ""
        lines += ["", f"## {metric.name}", "", f"A {metric.kind}{labels}. {metric.meaning}", "", metric.advice]
    return "\n".join(lines) + "\n"
