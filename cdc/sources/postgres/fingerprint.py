"""What the catalog says of what tables' rows are made of: rows change without an event only where it changes.

`pg_class.relfilenode` is the file that holds a table's rows. A statement that rewrites rows, or takes all of them away,
gives the table another one: ALTER TABLE, TRUNCATE, VACUUM FULL, CLUSTER. The rows of a partitioned table are in its
leaves, which come and go. Beside these, the text of a value changes with its type: an enum's label gets another name, a
composite gets another attribute.

All of it is read from the tables of the catalog alone, in the snapshot of the session. Functions such as `pg_get_expr`
and `pg_partition_tree` look at the present instead, and some wait for an ALTER TABLE that goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psycopg

from cdc.sources.postgres.catalog import Connection
from cdc.sources.postgres.session import number, of_type, readable

# From FirstNormalObjectId on; the types below come with the server and stay as they are.
_TABLES = """
WITH RECURSIVE part (root, oid, kind, file) AS (
    SELECT c.oid, c.oid, c.relkind, c.relfilenode FROM pg_class c WHERE c.oid = ANY(%(oids)s::oid[])
    UNION ALL
    SELECT p.root, c.oid, c.relkind, c.relfilenode
    FROM part p JOIN pg_inherits i ON i.inhparent = p.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE p.kind = 'p'
), stored AS (
    SELECT root, string_agg(oid::text || ':' || file::text, ' ' ORDER BY oid) AS files
    FROM part WHERE kind <> 'p' GROUP BY root
), described AS (
    SELECT a.attrelid,
           string_agg(concat_ws(' ', a.attnum, a.atttypid, a.atttypmod, a.attgenerated, a.attname), ','
                      ORDER BY a.attnum) AS columns,
           array_agg(DISTINCT a.atttypid::int8) FILTER (WHERE a.atttypid >= 16384) AS types
    FROM pg_attribute a WHERE a.attrelid = ANY(%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY a.attrelid
)
SELECT c.oid::int8, coalesce(s.files, ''), c.relnatts::int4,
       hashtextextended(concat_ws(' ', n.nspname, c.relname, d.columns) COLLATE "C", 0), coalesce(d.types, '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN stored s ON s.root = c.oid LEFT JOIN described d ON d.attrelid = c.oid
WHERE c.oid = ANY(%(oids)s::oid[])
"""

# Each type with one row per fact and the type that the fact names; from there on in the same way. Multiranges came with
# PostgreSQL 14, and with them a column of pg_range.
_TYPES = """
WITH RECURSIVE fact (type, called, name, text, part) AS (
    SELECT 0::oid, ''::name, '', '' COLLATE "C", unnest(%(types)s::oid[])
    UNION
    SELECT t.oid, t.typname, f.name, f.text, f.part
    FROM fact u JOIN pg_type t ON t.oid = u.part AND t.oid >= 16384 CROSS JOIN LATERAL (
        SELECT 'kind', t.typtype::text, 0::oid
        UNION ALL SELECT 'base', concat_ws(' ', t.typbasetype, t.typtypmod), t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT 'element', t.typelem::text, t.typelem WHERE t.typelem <> 0
        UNION ALL SELECT 'label ' || e.oid, e.enumlabel::text, 0 FROM pg_enum e WHERE e.enumtypid = t.oid
        UNION ALL SELECT 'bound', r.rngsubtype::text, r.rngsubtype FROM pg_range r
                  WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
        UNION ALL SELECT 'attribute ' || a.attnum, concat_ws(' ', a.atttypid, a.atttypmod), a.atttypid
                  FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) f (name, text, part)
)
SELECT type::int8, called, name, text, part::int8 FROM fact WHERE type <> 0
"""

_LOCK_PATIENCE = "100ms"  # that a look at a new partition waits for a statement that holds it


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the catalog said of one table.

    Attributes:
        files: `oid:relfilenode` of the table, or of each leaf of a partitioned one, in the order of the oids.
        attributes: how many columns it had ever had when these files were seen first; a column with a higher number
            came when the rows were in them.
        columns: a hash of its name and of its columns' names and types; 0 if the shape that is followed is another one.
    """

    files: str
    attributes: int = field(compare=False)
    columns: int

    @property
    def leaves(self) -> dict[int, int]:
        """The file of each leaf, by oid."""
        return {int(oid): int(file) for oid, _, file in (leaf.partition(":") for leaf in self.files.split())}


@dataclass(frozen=True, slots=True)
class Change:
    """How the files that hold a table's rows changed.

    Attributes:
        came: leaves that are new.
        went: whether leaves are no more.
        rewritten: whether leaves have another file.
    """

    came: frozenset[int]
    went: bool
    rewritten: bool

    @property
    def reasons(self) -> list[str]:
        """What it means for the rows, for people."""
        reasons = [
            ("its rows were rewritten, or went all at once", self.rewritten),
            ("a partition with rows was attached", bool(self.came)),
            ("a partition was dropped or detached", self.went),
        ]
        return [text for text, is_so in reasons if is_so]


@dataclass(frozen=True, slots=True)
class Look:
    """What the catalog says of some tables.

    Attributes:
        tables: by oid, those that exist.
        uses: the types of each table's columns, without those that come with the server.
        types: the facts of each of these types, and of those that they consist of.
        parts: the types that each type consists of.
        called: the name of each type.
    """

    tables: dict[int, Fingerprint] = field(default_factory=dict)
    uses: dict[int, frozenset[int]] = field(default_factory=dict)
    types: dict[int, dict[str, str]] = field(default_factory=dict)
    parts: dict[int, set[int]] = field(default_factory=dict)
    called: dict[int, str] = field(default_factory=dict)

    def users(self, types: Iterable[int]) -> dict[int, list[str]]:
        """The tables whose values hold any of some types, however deep, each with the names of these types."""
        found: dict[int, list[str]] = {}
        for oid, direct in self.uses.items():
            inside, queue = set(), list(direct)
            while queue:
                kind = queue.pop()
                if kind not in inside:
                    inside.add(kind)
                    queue += self.parts.get(kind, ())
            if names := sorted(self.called[kind] for kind in inside.intersection(types)):
                found[oid] = names
        return found


@readable()
def look(connection: Connection, oids: Iterable[int]) -> Look:
    """Look at tables, in two queries however many they are, as this session's snapshot sees them."""
    seen = Look()
    for oid, files, attributes, columns, types in connection.execute(_TABLES, {"oids": list(oids)}).fetchall():
        seen.tables[number(oid)] = Fingerprint(str(files), number(attributes), number(columns))
        seen.uses[number(oid)] = frozenset(number(kind) for kind in of_type(types, list))
    used = sorted(frozenset[int]().union(*seen.uses.values()))
    for oid, called, name, text, part in connection.execute(_TYPES, {"types": used}).fetchall() if used else ():
        seen.called[number(oid)] = str(called)
        seen.types.setdefault(number(oid), {})[str(name)] = str(text)
        seen.parts.setdefault(number(oid), set()).add(number(part))
    return seen


def changed_types(was: Mapping[int, dict[str, str]], now: Mapping[int, dict[str, str]]) -> set[int]:
    """Types whose values may read otherwise than when a table got them.

    A new label of an enum changes no value. A type that was not known may have changed before it was seen, if it is one
    that can: an enum or a composite.
    """
    return {kind for kind, facts in now.items() if _reads_otherwise(was.get(kind), facts)}


def _reads_otherwise(was: Mapping[str, str] | None, now: Mapping[str, str]) -> bool:
    if was is None:
        return now["kind"] in ("e", "c")
    return any(now.get(name) != text for name, text in was.items()) or any(
        not name.startswith("label ") for name in now.keys() - was.keys()
    )


def change(was: Fingerprint, now: Fingerprint) -> Change | None:
    """How the files changed; None if they did not."""
    if was.files == now.files:
        return None
    before, after = was.leaves, now.leaves
    return Change(
        came=frozenset(after.keys() - before.keys()),
        went=bool(before.keys() - after.keys()),
        rewritten=any(after.get(oid, file) != file for oid, file in before.items()),
    )


@readable()
def are_empty(connection: Connection, leaves: Iterable[int]) -> bool:
    """Whether leaves certainly have no rows: their files are empty, and all that comes to be in them is in the log.

    A partition that was just made is so. To look at its file takes a lock, for which nobody may wait long here.
    """
    wanted = list(leaves)
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_PATIENCE}'")
            rows = connection.execute(
                "SELECT pg_relation_size(oid)::int8 FROM pg_class "
                "WHERE oid = ANY(%s::oid[]) AND relkind = 'r' AND relpersistence = 'p'",
                (wanted,),
            ).fetchall()
    except psycopg.errors.LockNotAvailable:
        return False
    return [size for (size,) in rows] == [0] * len(wanted)
