"""PostgreSQL's catalogue as its clients ask for it, as views and macros over DuckDB's own.

DuckDB has a `pg_catalog`, which lacks what psql, JDBC and Grafana ask for, knows other type numbers, and shows every database
that is attached. These are in a schema of the memory beside the file; `dialect` puts their names into queries. A number of a
table is made of its name, so it is the same in the next edition.
"""

from __future__ import annotations

from cdc.serve.pgwire import values
from cdc.tables.names import CATALOG

PLACE = "memory.pg"
DATABASE = "cdc_database"  # the variable that holds what the reader calls the database
PATH = "cdc_path"  # the variable that holds the schemas in which a name without one is looked for
SERVER_VERSION = "16.4"

_SCALARS = (
    (values.BOOL, "bool", "boolean", "B"),
    (values.BYTEA, "bytea", "bytea", "U"),
    (18, "char", '"char"', "Z"),
    (19, "name", "name", "S"),
    (values.INT8, "int8", "bigint", "N"),
    (values.INT2, "int2", "smallint", "N"),
    (values.INT4, "int4", "integer", "N"),
    (values.TEXT, "text", "text", "S"),
    (26, "oid", "oid", "N"),
    (values.JSON, "json", "json", "U"),
    (values.FLOAT4, "float4", "real", "N"),
    (values.FLOAT8, "float8", "double precision", "N"),
    (1042, "bpchar", "character", "S"),
    (1043, "varchar", "character varying", "S"),
    (values.DATE, "date", "date", "D"),
    (values.TIME, "time", "time without time zone", "D"),
    (values.TIMESTAMP, "timestamp", "timestamp without time zone", "D"),
    (values.TIMESTAMPTZ, "timestamptz", "timestamp with time zone", "D"),
    (values.INTERVAL, "interval", "interval", "T"),
    (values.TIMETZ, "timetz", "time with time zone", "D"),
    (values.NUMERIC, "numeric", "numeric", "N"),
    (values.UUID, "uuid", "uuid", "U"),
    (3802, "jsonb", "jsonb", "U"),
)

_TYPES = ", ".join(
    f"({oid}, '{name}', '{words}', '{category}', {values.ARRAYS.get(oid, 0)}, {values.size_of(oid)}, 0)"
    for oid, name, words, category in _SCALARS
)
_ARRAY_TYPES = ", ".join(
    f"({values.ARRAYS[oid]}, '_{name}', '{words}[]', 'A', 0, -1, {oid})"
    for oid, name, words, _ in _SCALARS
    if oid in values.ARRAYS
)
# What each of DuckDB's types is called by PostgreSQL; a DECIMAL, a list and what is nested are seen by their form.
_KINDS = " ".join(f"WHEN '{name}' THEN {oid}" for name, oid in values.OIDS.items())
_ARRAY_KINDS = " ".join(f"WHEN '{name}' THEN {values.ARRAYS[oid]}" for name, oid in values.OIDS.items())

_SETTINGS = {
    "server_version": SERVER_VERSION,
    "server_version_num": "160004",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "integer_datetimes": "on",
    "max_identifier_length": "63",
    "max_index_keys": "32",
    "default_transaction_isolation": "repeatable read",
    "transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "transaction_read_only": "on",
    "is_superuser": "off",
    "lc_collate": "C",
    "lc_ctype": "C",
    "in_hot_standby": "off",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "statement_timeout": "0",
    "application_name": "",
    "search_path": "public",
    "row_security": "on",
    "default_tablespace": "",
    "max_connections": "100",
}
SETTINGS = {name.lower(): value for name, value in _SETTINGS.items()}
_SETTING_ROWS = ", ".join(f"('{name}', '{value}')" for name, value in _SETTINGS.items())
_SETTING_CASES = " ".join(f"WHEN '{name}' THEN '{value}'" for name, value in SETTINGS.items())

# An argument stands in the text of a macro as it is, so tables there have names that no query gives its own.
_MACROS = {
    "number_of(kind, schema_name, name)": "CAST(16384 + hash(kind || '.' || schema_name || '.' || name) % 2000000000 AS BIGINT)",
    "number_of_schema(name)": f"CASE name WHEN 'pg_catalog' THEN 11 ELSE {PLACE}.number_of('schema', '', name) END",
    "number_of_type(kind)": f"""CASE
        WHEN kind LIKE '%]' THEN CASE
            WHEN kind LIKE 'DECIMAL%' THEN {values.ARRAYS[values.NUMERIC]}
            ELSE CASE regexp_replace(kind, '(\\[[0-9]*\\])+$', '') {_ARRAY_KINDS} ELSE {values.ARRAYS[values.TEXT]} END END
        WHEN kind LIKE 'DECIMAL%' THEN {values.NUMERIC}
        WHEN kind LIKE 'STRUCT(%' OR kind LIKE 'MAP(%' OR kind LIKE 'UNION(%' THEN {values.JSON}
        ELSE CASE kind {_KINDS} ELSE {values.TEXT} END END""",
    "modifier_of_type(kind)": """CASE WHEN kind LIKE 'DECIMAL(%' AND kind NOT LIKE '%]'
        THEN CAST(regexp_extract(kind, '\\((\\d+)', 1) AS INTEGER) * 65536
           + CAST(regexp_extract(kind, ',\\s*(\\d+)', 1) AS INTEGER) + 4
        ELSE -1 END""",
    "format_type(number, modifier)": f"""CASE WHEN number IS NULL THEN NULL ELSE
        coalesce((SELECT words FROM {PLACE}.types _t WHERE _t.oid = number), '???')
        || CASE WHEN number = {values.NUMERIC} AND modifier > 0
        THEN '(' || ((modifier - 4) // 65536) || ',' || ((modifier - 4) % 65536) || ')' ELSE '' END END""",
    "current_database()": f"coalesce(getvariable('{DATABASE}'), '{CATALOG}')",
    "version()": f"'PostgreSQL {SERVER_VERSION} (cdc, DuckDB ' || system.main.version() || ')'",
    "current_setting(name, missing := false)": f"CASE lower(name) {_SETTING_CASES} END",
    "set_config(name, value, is_local)": "value",
    "pg_get_userbyid(oid)": "'cdc'",
    "pg_table_is_visible(number)": f"""(number IN (SELECT _c.oid FROM {PLACE}.pg_class _c JOIN {PLACE}.pg_namespace _n
        ON _n.oid = _c.relnamespace WHERE _n.nspname NOT LIKE '\\_cdc%' ESCAPE '\\'))""",
    "pg_type_is_visible(oid)": "true",
    "pg_function_is_visible(oid)": "true",
    "pg_statistics_obj_is_visible(oid)": "true",
    "pg_get_expr(expression, oid, pretty := false)": "CAST(expression AS VARCHAR)",
    "pg_get_viewdef(number, pretty := false)": f"""(SELECT sql FROM {PLACE}.views _v WHERE _v.oid = number)""",
    "pg_get_indexdef(oid, place := 0, pretty := false)": "CAST(NULL AS VARCHAR)",
    "pg_get_constraintdef(oid, pretty := false)": "CAST(NULL AS VARCHAR)",
    "pg_get_triggerdef(oid, pretty := false)": "CAST(NULL AS VARCHAR)",
    "pg_get_ruledef(oid, pretty := false)": "CAST(NULL AS VARCHAR)",
    "pg_get_partkeydef(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_functiondef(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_function_sqlbody(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_function_result(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_function_arguments(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_function_identity_arguments(oid)": "CAST(NULL AS VARCHAR)",
    "pg_get_serial_sequence(relation, name)": "CAST(NULL AS VARCHAR)",
    "pg_get_statisticsobjdef_columns(oid)": "CAST(NULL AS VARCHAR)",
    "pg_relation_is_publishable(oid)": "false",
    "pg_encoding_to_char(number)": "'UTF8'",
    "pg_char_to_encoding(name)": "6",
    "pg_is_in_recovery()": "false",
    "pg_backend_pid()": "0",
    "pg_my_temp_schema()": "0",
    "pg_is_other_temp_schema(oid)": "false",
    "pg_postmaster_start_time()": "now()",
    "pg_tablespace_location(oid)": "''",
    "pg_relation_size(relation, fork := 'main')": "CAST(0 AS BIGINT)",
    "pg_table_size(relation)": "CAST(0 AS BIGINT)",
    "pg_indexes_size(relation)": "CAST(0 AS BIGINT)",
    "pg_total_relation_size(relation)": "CAST(0 AS BIGINT)",
    "pg_database_size(name)": "CAST(0 AS BIGINT)",
    "pg_size_pretty(size)": "format_bytes(size)",
    "pg_stat_get_numscans(oid)": "CAST(0 AS BIGINT)",
    "quote_ident(name)": "CASE WHEN regexp_full_match(name, '[a-z_][a-z0-9_]*') THEN name ELSE '\"' || replace(name, '\"', '\"\"') || '\"' END",
    "quote_literal(value)": "'''' || replace(CAST(value AS VARCHAR), '''', '''''') || ''''",
    "obj_description(number, catalog := 'pg_class')": f"(SELECT description FROM {PLACE}.pg_description _d WHERE _d.objoid = number AND _d.objsubid = 0)",
    "col_description(number, place)": f"(SELECT description FROM {PLACE}.pg_description _d WHERE _d.objoid = number AND _d.objsubid = place)",
    "shobj_description(oid, catalog)": "CAST(NULL AS VARCHAR)",
    "current_schemas(implicit)": f"coalesce(getvariable('{PATH}'), CAST([] AS VARCHAR[]))",
    "array_upper(items, dimension)": "CASE WHEN len(items) > 0 THEN len(items) END",
    "array_lower(items, dimension)": "CASE WHEN len(items) > 0 THEN 1 END",
    "_pg_expandarray(items)": "unnest(list_transform(items, lambda x, n: {'x': x, 'n': n}))",
    "array_remove(items, item)": "list_filter(items, lambda x: x IS DISTINCT FROM item)",
    "parse_ident(name)": "string_split(replace(name, '\"', ''), '.')",
    "number_of_table(wanted)": f"""CASE replace(wanted, 'pg_catalog.', '') WHEN 'pg_class' THEN 1259 WHEN 'pg_namespace' THEN 2615
        WHEN 'pg_type' THEN 1247 WHEN 'pg_attribute' THEN 1249 WHEN 'pg_database' THEN 1262 WHEN 'pg_proc' THEN 1255 ELSE (SELECT _c.oid FROM {PLACE}.pg_class _c JOIN {PLACE}.pg_namespace _n ON _n.oid = _c.relnamespace
        WHERE lower(replace(wanted, '"', '')) IN (lower(_c.relname), lower(_n.nspname || '.' || _c.relname))
        ORDER BY _n.nspname <> 'public', _n.nspname LIMIT 1) END""",
    "name_of_table(number)": f"""coalesce((SELECT CASE WHEN _n.nspname = 'public' THEN _c.relname ELSE _n.nspname || '.' || _c.relname END
        FROM {PLACE}.pg_class _c JOIN {PLACE}.pg_namespace _n ON _n.oid = _c.relnamespace
        WHERE _c.oid = number), CAST(number AS VARCHAR))""",
    "number_of_type_named(wanted)": f"""(SELECT min(oid) FROM {PLACE}.types _t
        WHERE replace(wanted, 'pg_catalog.', '') IN (_t.name, _t.words))""",
}
_ALIKE = {
    f"has_{thing}_privilege": "true" for thing in ("table", "schema", "database", "column", "any_column", "function")
}
FUNCTIONS = {signature.partition("(")[0] for signature in _MACROS} | set(_ALIKE)

_OF_FILE = f"database_name = '{CATALOG}'"
_VIEWS = {
    "types": f"SELECT * FROM (VALUES {_TYPES}, {_ARRAY_TYPES}) t(oid, name, words, category, array_oid, size, element)",
    "pg_namespace": f"""SELECT {PLACE}.number_of_schema(schema_name) AS oid, schema_name AS nspname, 10 AS nspowner,
        CAST(NULL AS VARCHAR[]) AS nspacl FROM duckdb_schemas() WHERE {_OF_FILE}
        UNION ALL VALUES (11, 'pg_catalog', 10, NULL), (12, 'information_schema', 10, NULL)""",
    "views": f"""SELECT {PLACE}.number_of('relation', schema_name, view_name) AS oid, * EXCLUDE (sql), sql
        FROM duckdb_views() WHERE {_OF_FILE} AND NOT internal""",
    "relations": f"""
        SELECT schema_name, table_name AS name, 'r' AS kind, estimated_size AS rows, column_count AS columns, comment
        FROM duckdb_tables() WHERE {_OF_FILE} AND NOT internal
        UNION ALL SELECT schema_name, view_name, 'v', 0, column_count, comment
        FROM duckdb_views() WHERE {_OF_FILE} AND NOT internal""",
    "pg_class": f"""SELECT {PLACE}.number_of('relation', schema_name, name) AS oid, name AS relname,
        {PLACE}.number_of_schema(schema_name) AS relnamespace, 0 AS reltype, 0 AS reloftype, 10 AS relowner,
        CASE kind WHEN 'r' THEN 2 ELSE 0 END AS relam, 0 AS relfilenode, 0 AS reltablespace, 0 AS relpages,
        CAST(rows AS FLOAT) AS reltuples, 0 AS relallvisible, 0 AS reltoastrelid, false AS relhasindex, false AS relisshared,
        'p' AS relpersistence, kind AS relkind, columns AS relnatts, 0 AS relchecks, false AS relhasrules,
        false AS relhastriggers, false AS relhassubclass, false AS relrowsecurity, false AS relforcerowsecurity,
        true AS relispopulated, 'd' AS relreplident, false AS relispartition, 0 AS relrewrite, 0 AS relfrozenxid,
        0 AS relminmxid, CAST(NULL AS VARCHAR[]) AS relacl, CAST(NULL AS VARCHAR[]) AS reloptions,
        CAST(NULL AS VARCHAR) AS relpartbound, false AS relhasoids FROM {PLACE}.relations""",
    "pg_attribute": f"""SELECT {PLACE}.number_of('relation', schema_name, table_name) AS attrelid, column_name AS attname,
        {PLACE}.number_of_type(data_type) AS atttypid, -1 AS attstattarget, -1 AS attlen, column_index AS attnum, 0 AS attndims,
        {PLACE}.modifier_of_type(data_type) AS atttypmod, false AS attbyval, 'p' AS attstorage, 'i' AS attalign,
        NOT is_nullable AS attnotnull, false AS atthasdef, false AS atthasmissing, '' AS attidentity, '' AS attgenerated,
        false AS attisdropped, true AS attislocal, 0 AS attinhcount, 0 AS attcollation, CAST(NULL AS VARCHAR[]) AS attacl,
        CAST(NULL AS VARCHAR[]) AS attoptions, CAST(NULL AS VARCHAR[]) AS attfdwoptions, '' AS attcompression,
        CAST(NULL AS VARCHAR[]) AS attmissingval FROM duckdb_columns() WHERE {_OF_FILE} AND NOT internal""",
    "pg_type": f"""SELECT oid, name AS typname, 11 AS typnamespace, 10 AS typowner, size AS typlen, false AS typbyval, 'b' AS typtype,
        category AS typcategory, false AS typispreferred, true AS typisdefined, ',' AS typdelim, 0 AS typrelid, element AS typelem,
        array_oid AS typarray, CASE category WHEN 'A' THEN 'array_in' ELSE name || 'in' END AS typinput, name || 'out' AS typoutput,
        CASE category WHEN 'A' THEN 'array_recv' ELSE name || 'recv' END AS typreceive, name || 'send' AS typsend, '-' AS typmodin, '-' AS typmodout,
        '-' AS typanalyze, 'i' AS typalign, 'p' AS typstorage, false AS typnotnull, 0 AS typbasetype, -1 AS typtypmod, 0 AS typndims,
        0 AS typcollation, CAST(NULL AS VARCHAR) AS typdefault, CAST(NULL AS VARCHAR) AS typdefaultbin,
        CAST(NULL AS VARCHAR[]) AS typacl, CASE category WHEN 'A' THEN 'array_subscript_handler' ELSE '-' END AS typsubscript
        FROM {PLACE}.types""",
    "pg_database": f"""SELECT 5 AS oid, {PLACE}.current_database() AS datname, 10 AS datdba, 6 AS encoding, 'c' AS datlocprovider,
        false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 'C' AS datcollate, 'C' AS datctype, 1663 AS dattablespace,
        CAST(NULL AS VARCHAR) AS daticulocale, CAST(NULL AS VARCHAR) AS daticurules, CAST(NULL AS VARCHAR) AS datcollversion,
        CAST(NULL AS VARCHAR[]) AS datacl, false AS dathasloginevt, 0 AS datfrozenxid, 0 AS datminmxid""",
    "pg_roles": """SELECT 10 AS oid, 'cdc' AS rolname, false AS rolsuper, true AS rolinherit, false AS rolcreaterole,
        false AS rolcreatedb, true AS rolcanlogin, false AS rolreplication, -1 AS rolconnlimit, '********' AS rolpassword,
        CAST(NULL AS TIMESTAMPTZ) AS rolvaliduntil, false AS rolbypassrls, CAST(NULL AS VARCHAR[]) AS rolconfig""",
    "pg_user": "SELECT 'cdc' AS usename, 10 AS usesysid, false AS usecreatedb, false AS usesuper, false AS userepl, false AS usebypassrls",
    "pg_am": "SELECT 2 AS oid, 'heap' AS amname, '-' AS amhandler, 't' AS amtype",
    "pg_tablespace": "SELECT 1663 AS oid, 'pg_default' AS spcname, 10 AS spcowner, CAST(NULL AS VARCHAR[]) AS spcacl, CAST(NULL AS VARCHAR[]) AS spcoptions",
    "pg_settings": f"SELECT name, setting, CAST(NULL AS VARCHAR) AS unit, 'Preset' AS category, '' AS short_desc, 'internal' AS context, 'string' AS vartype, 'default' AS source, setting AS boot_val, setting AS reset_val FROM (VALUES {_SETTING_ROWS}) t(name, setting)",
    "pg_tables": f"SELECT schema_name AS schemaname, name AS tablename, 'cdc' AS tableowner, CAST(NULL AS VARCHAR) AS tablespace, false AS hasindexes, false AS hasrules, false AS hastriggers, false AS rowsecurity FROM {PLACE}.relations WHERE kind = 'r'",
    "pg_views": f"SELECT schema_name AS schemaname, view_name AS viewname, 'cdc' AS viewowner, sql AS definition FROM {PLACE}.views",
    "pg_stat_user_tables": f"SELECT oid AS relid, nspname AS schemaname, relname, CAST(reltuples AS BIGINT) AS n_live_tup, 0 AS n_dead_tup, 0 AS seq_scan, 0 AS idx_scan FROM (SELECT c.oid, n.nspname, c.relname, c.reltuples FROM {PLACE}.pg_class c JOIN {PLACE}.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r')",
    "pg_description": f"""SELECT {PLACE}.number_of('relation', schema_name, name) AS objoid, 1259 AS classoid, 0 AS objsubid, comment AS description
        FROM {PLACE}.relations WHERE comment IS NOT NULL UNION ALL
        SELECT {PLACE}.number_of('relation', schema_name, table_name), 1259, column_index, comment FROM duckdb_columns() WHERE {_OF_FILE} AND comment IS NOT NULL""",
    "schemata": f"SELECT {PLACE}.current_database() AS catalog_name, nspname AS schema_name, 'cdc' AS schema_owner FROM {PLACE}.pg_namespace",
    "tables": f"""SELECT {PLACE}.current_database() AS table_catalog, schema_name AS table_schema, name AS table_name,
        CASE kind WHEN 'r' THEN 'BASE TABLE' ELSE 'VIEW' END AS table_type, 'NO' AS is_insertable_into, 'NO' AS is_typed FROM {PLACE}.relations""",
    "views_of_standard": f"SELECT {PLACE}.current_database() AS table_catalog, schema_name AS table_schema, view_name AS table_name, sql AS view_definition, 'NONE' AS check_option, 'NO' AS is_updatable FROM {PLACE}.views",
    "columns": f"""SELECT {PLACE}.current_database() AS table_catalog, schema_name AS table_schema, table_name, column_name,
        column_index AS ordinal_position, CAST(NULL AS VARCHAR) AS column_default, CASE WHEN is_nullable THEN 'YES' ELSE 'NO' END AS is_nullable,
        CASE WHEN t.category = 'A' THEN 'ARRAY' ELSE t.words END AS data_type, CAST(NULL AS INTEGER) AS character_maximum_length,
        CAST(NULL AS INTEGER) AS character_octet_length, numeric_precision, numeric_precision_radix, numeric_scale,
        CASE WHEN t.category = 'D' THEN 6 END AS datetime_precision, {PLACE}.current_database() AS udt_catalog, 'pg_catalog' AS udt_schema,
        t.name AS udt_name, 'NO' AS is_identity, 'NEVER' AS is_generated, 'NO' AS is_updatable, CAST(NULL AS VARCHAR) AS collation_name,
        CAST(NULL AS VARCHAR) AS domain_name, CAST(NULL AS VARCHAR) AS identity_generation, CAST(NULL AS VARCHAR) AS generation_expression
        FROM duckdb_columns() c JOIN {PLACE}.types t ON t.oid = {PLACE}.number_of_type(c.data_type) WHERE {_OF_FILE} AND NOT internal""",
}
# What a file has nothing of: its columns, as names of numbers unless they say otherwise (t: a text, b: a boolean, l: a list).
_EMPTY = {
    "pg_index": "indexrelid indrelid indnatts indnkeyatts b:indisunique b:indnullsnotdistinct b:indisprimary b:indisexclusion b:indimmediate b:indisclustered b:indisvalid b:indcheckxmin b:indisready b:indislive b:indisreplident l:indkey l:indcollation l:indclass l:indoption t:indexprs t:indpred",
    "pg_constraint": "oid t:conname connamespace t:contype b:condeferrable b:condeferred b:convalidated conrelid contypid conindid conparentid confrelid t:confupdtype t:confdeltype t:confmatchtype b:conislocal coninhcount b:connoinherit l:conkey l:confkey l:conpfeqop t:conbin",
    "pg_attrdef": "oid adrelid adnum t:adbin",
    "pg_inherits": "inhrelid inhparent inhseqno b:inhdetachpending",
    "pg_trigger": "oid tgrelid tgparentid t:tgname tgfoid tgtype t:tgenabled b:tgisinternal tgconstrrelid tgconstrindid tgconstraint b:tgdeferrable",
    "pg_policy": "oid t:polname polrelid t:polcmd b:polpermissive l:polroles t:polqual t:polwithcheck",
    "pg_rewrite": "oid t:rulename ev_class t:ev_type t:ev_enabled b:is_instead",
    "pg_extension": "oid t:extname extowner extnamespace b:extrelocatable t:extversion",
    "pg_enum": "oid enumtypid enumsortorder t:enumlabel",
    "pg_range": "rngtypid rngsubtype rngmultitypid",
    "pg_collation": "oid t:collname collnamespace collowner t:collprovider b:collisdeterministic collencoding t:collcollate t:collctype t:colliculocale t:collicurules t:collversion",
    "pg_language": "oid t:lanname lanowner b:lanispl b:lanpltrusted lanplcallfoid laninline lanvalidator l:lanacl",
    "pg_proc": "oid t:proname pronamespace proowner prolang t:prokind prorettype b:proretset pronargs l:proargtypes l:proallargtypes l:proargmodes l:proargnames t:prosrc t:provolatile b:proisagg b:prosecdef t:proparallel l:proacl",
    "pg_publication": "oid t:pubname pubowner b:puballtables b:pubinsert b:pubupdate b:pubdelete b:pubtruncate b:pubviaroot",
    "pg_publication_rel": "oid prpubid prrelid t:prqual l:prattrs",
    "pg_publication_namespace": "oid pnpubid pnnspid",
    "pg_subscription": "oid subdbid t:subname subowner b:subenabled b:subbinary t:substream t:subtwophasestate b:subdisableonerr t:suborigin b:subpasswordrequired b:subrunasowner t:subsynccommit t:subconninfo t:subskiplsn l:subpublications",
    "pg_statistic_ext": "oid stxrelid t:stxname stxnamespace stxstattarget l:stxkeys l:stxkind",
    "pg_foreign_table": "ftrelid ftserver l:ftoptions",
    "pg_foreign_server": "oid t:srvname srvowner srvfdw t:srvtype t:srvversion l:srvacl l:srvoptions",
    "pg_foreign_data_wrapper": "oid t:fdwname fdwowner fdwhandler fdwvalidator l:fdwacl l:fdwoptions",
    "pg_user_mappings": "umid srvid t:srvname umuser t:usename l:umoptions",
    "pg_partitioned_table": "partrelid t:partstrat partnatts l:partattrs t:partexprs",
    "pg_shdescription": "objoid classoid t:description",
    "pg_depend": "classid objid objsubid refclassid refobjid refobjsubid t:deptype",
    "pg_sequence": "seqrelid seqtypid seqstart seqincrement seqmax seqmin seqcache b:seqcycle",
    "pg_sequences": "t:schemaname t:sequencename",
    "pg_matviews": "t:schemaname t:matviewname t:matviewowner t:definition",
    "pg_indexes": "t:schemaname t:tablename t:indexname t:tablespace t:indexdef",
    "pg_event_trigger": "oid t:evtname t:evtevent evtowner evtfoid t:evtenabled l:evttags",
    "pg_cast": "oid castsource casttarget castfunc t:castcontext t:castmethod",
    "pg_operator": "oid t:oprname oprnamespace oprowner t:oprkind b:oprcanmerge b:oprcanhash oprleft oprright oprresult oprcom oprnegate oprcode oprrest oprjoin",
    "pg_opclass": "oid opcmethod t:opcname opcnamespace opcowner opcfamily opcintype b:opcdefault opckeytype",
    "pg_opfamily": "oid opfmethod t:opfname opfnamespace opfowner",
    "pg_amop": "oid amopfamily amoplefttype amoprighttype amopstrategy t:amoppurpose amopopr amopmethod amopsortfamily",
    "pg_amproc": "oid amprocfamily amproclefttype amprocrighttype amprocnum amproc",
    "pg_conversion": "oid t:conname connamespace conowner conforencoding contoencoding conproc b:condefault",
    "pg_largeobject_metadata": "oid lomowner l:lomacl",
    "pg_ts_config": "oid t:cfgname cfgnamespace cfgowner cfgparser",
    "pg_ts_config_map": "mapcfg maptokentype mapseqno mapdict",
    "pg_ts_dict": "oid t:dictname dictnamespace dictowner dicttemplate t:dictinitoption",
    "pg_ts_parser": "oid t:prsname prsnamespace prsstart prstoken prsend prsheadline prslextype",
    "pg_ts_template": "oid t:tmplname tmplnamespace tmplinit tmpllexize",
    "pg_aggregate": "aggfnoid t:aggkind",
    "pg_auth_members": "roleid member grantor b:admin_option",
    "pg_db_role_setting": "setdatabase setrole l:setconfig",
    "pg_default_acl": "oid defaclrole defaclnamespace t:defaclobjtype l:defaclacl",
    "pg_stat_activity": "datid t:datname pid t:usename t:application_name t:state t:query",
    "pg_locks": "t:locktype pid",
    "pg_group": "t:groname grosysid",
    "table_constraints": "t:constraint_catalog t:constraint_schema t:constraint_name t:table_catalog t:table_schema t:table_name t:constraint_type t:is_deferrable t:initially_deferred",
    "key_column_usage": "t:constraint_catalog t:constraint_schema t:constraint_name t:table_catalog t:table_schema t:table_name t:column_name ordinal_position position_in_unique_constraint",
    "referential_constraints": "t:constraint_catalog t:constraint_schema t:constraint_name t:unique_constraint_schema t:unique_constraint_name t:update_rule t:delete_rule",
    "constraint_column_usage": "t:table_catalog t:table_schema t:table_name t:column_name t:constraint_catalog t:constraint_schema t:constraint_name",
    "routines": "t:specific_schema t:specific_name t:routine_schema t:routine_name t:routine_type t:data_type",
    "parameters": "t:specific_schema t:specific_name ordinal_position t:parameter_name t:data_type",
    "sequences": "t:sequence_schema t:sequence_name",
    "triggers": "t:trigger_schema t:trigger_name t:event_object_schema t:event_object_table",
    "table_privileges": "t:grantor t:grantee t:table_catalog t:table_schema t:table_name t:privilege_type t:is_grantable",
    "role_table_grants": "t:grantor t:grantee t:table_catalog t:table_schema t:table_name t:privilege_type t:is_grantable",
}
_EMPTY_TYPES = {"t": "VARCHAR", "b": "BOOLEAN", "l": "BIGINT[]", "": "BIGINT"}
# Every one of them is a table for queries that come without a schema, or with `pg_catalog`.
TABLES = {name for name in (*_VIEWS, *_EMPTY) if name.startswith("pg_")}
# And these with `information_schema`.
STANDARD = {name: name for name in ("schemata", "tables", "columns", *(n for n in _EMPTY if not n.startswith("pg_")))}
STANDARD["views"] = "views_of_standard"


def _empty(name: str, columns: str) -> str:
    hidden = ("tableoid",) if name.startswith("pg_") else ()
    named = (column.rpartition(":") for column in (*hidden, *columns.split()))
    return f"SELECT {', '.join(f'CAST(NULL AS {_EMPTY_TYPES[kind]}) AS {name}' for kind, _, name in named)} WHERE false"


# DuckDB wants to see what a macro reads when it makes it.
_ALL_MACROS = [f"CREATE MACRO {PLACE}.{signature} AS {body}" for signature, body in _MACROS.items()]
_TABLE_MACROS = {
    "pg_options_to_table(options)": "SELECT CAST(NULL AS VARCHAR) AS option_name, CAST(NULL AS VARCHAR) AS option_value WHERE options IS NULL AND false",
    "items_of(text, separator)": "SELECT string_split(text, separator) AS items",
    "pg_get_keywords()": "SELECT keyword_name AS word, 'U' AS catcode, 'unreserved' AS catdesc FROM duckdb_keywords()",
}
TABLE_FUNCTIONS = {signature.partition("(")[0] for signature in _TABLE_MACROS}
_PRIVILEGES = [f"CREATE MACRO {PLACE}.{name}(a, b) AS true, (a, b, c) AS true, (a, b, c, d) AS true" for name in _ALIKE]
SETUP = ";\n".join(
    [
        f"CREATE SCHEMA {PLACE}",
        *(f"CREATE VIEW {PLACE}.{name} AS {_empty(name, columns)}" for name, columns in _EMPTY.items()),
        *(macro for macro in _ALL_MACROS if f"FROM {PLACE}" not in macro),
        *(f"CREATE VIEW {PLACE}.{name} AS {query}" for name, query in _VIEWS.items()),
        *(macro for macro in _ALL_MACROS if f"FROM {PLACE}" in macro),
        *(f"CREATE MACRO {PLACE}.{signature} AS TABLE {query}" for signature, query in _TABLE_MACROS.items()),
        *_PRIVILEGES,
    ]
)
