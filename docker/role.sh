#!/bin/sh
# Run once, when the database is made: a role that may replicate, and nothing else. It is a member of `owner`, which the
# application's tables belong to (SET ROLE owner; or ALTER TABLE ... OWNER TO owner), since only owners may publish them.
set -eu
psql -v ON_ERROR_STOP=1 -v database="$POSTGRES_DB" -v password="$CDC_PASSWORD" \
    -U "${POSTGRES_USER:-postgres}" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE owner;
GRANT USAGE, CREATE ON SCHEMA public TO owner;
CREATE ROLE cdc LOGIN REPLICATION PASSWORD :'password';
GRANT owner TO cdc;
GRANT CREATE ON DATABASE :"database" TO cdc;
SQL
