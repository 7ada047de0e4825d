"""The PostgreSQL protocol, version 3.0: `server` keeps connections, `conversation` is one; `values` are how a value travels."""
