"""What DuckDB is, as far as that is asked before it is loaded."""

PRODUCT = "DuckDB"
SEES_CASE = False  # names that differ in case alone are the same one
