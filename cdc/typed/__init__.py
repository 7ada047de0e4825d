"""Values made native by an in-process DuckDB, before any database sees them, and written as the source's text again."""
