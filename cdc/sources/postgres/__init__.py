"""PostgreSQL: the WAL through logical decoding (pgoutput), and what was there before it through COPY."""
