"""The PostgreSQL protocol, version 3.0: `server` takes connections, `conversation` holds one, `values` travel."""
