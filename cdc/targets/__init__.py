"""One folder per database: everything that is particular to it."""
