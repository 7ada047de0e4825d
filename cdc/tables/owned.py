"""Which tables of a target are the pipeline's own, by name and by identity, in memory: asked once per table (P21)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdc.model.schema import TableName, TableSchema
from cdc.target import SetApart


class OwnedTables:
    """The tables that this pipeline made, each by its identity in the source."""

    def __init__(self, tables: Mapping[int, TableName]) -> None:
        self._tables: dict[int, TableName] = {}
        self._named: dict[tuple[str, str], int] = {}
        self._spelled: dict[str, dict[str, set[int]]] = {}  # schemas without case, as spelled, with their tables
        for identity, table in tables.items():
            self.own(identity, table)

    def __len__(self) -> int:
        return len(self._tables)

    def get(self, identity: int) -> TableName | None:
        """The name of a table, if it is one of these."""
        return self._tables.get(identity)

    def own(self, identity: int, table: TableName) -> None:
        """Take note of a table under the name that it has now."""
        if (before := self._tables.pop(identity, None)) is not None:
            del self._named[_folded(before)]
            self._spelled[before.schema.lower()][before.schema].discard(identity)
        self._tables[identity] = table
        self._named[_folded(table)] = identity
        self._spelled.setdefault(table.schema.lower(), {}).setdefault(table.schema, set()).add(identity)

    def clash(self, identity: int, table: TableName) -> TableName | None:
        """Another table that has one name, or whose schema has, to a database that does not see case (E-07)."""
        same = self._named.get(_folded(table), identity)
        if same != identity:
            return self._tables[same]
        for spelling, members in self._spelled.get(table.schema.lower(), {}).items():
            if spelling != table.schema and (others := members - {identity}):
                return self._tables[min(others)]
        return None


def _folded(table: TableName) -> tuple[str, str]:
    return table.schema.lower(), table.name.lower()


def first_come(product: str) -> SetApart:
    """What a database that does not see case cannot take beside what it has (O7, P17)."""

    def set_apart(coming: Iterable[TableSchema], taken: Iterable[TableName]) -> dict[TableName, str]:
        names, schemas = {}, {}
        for table in taken:
            names[_folded(table)] = table
            schemas[table.schema.lower()] = table.schema
        refused: dict[TableName, str] = {}
        for schema in coming:
            table = schema.table
            other = names.setdefault(_folded(table), table)
            beside = schemas.setdefault(table.schema.lower(), table.schema)
            columns = [column.name.lower() for column in schema.columns]
            if other != table:
                refused[table] = f"Its name differs from that of {other} in case only, which {product} does not see."
            elif beside != table.schema:
                refused[table] = f"Its schema differs from {beside} in case only, which {product} does not see."
            elif len(set(columns)) < len(columns):
                twins = sorted(column.name for column in schema.columns if columns.count(column.name.lower()) > 1)
                refused[table] = f"Its columns {', '.join(twins)} differ in case only, which {product} does not see."
        return refused

    return set_apart
