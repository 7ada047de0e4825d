"""Serving a published DuckDB file to readers: by the PostgreSQL protocol, Arrow Flight SQL and HTTP. Read only.

All of it runs in a process of its own with a memory limit of its own. Heavy readers inside the writing process ended
that process in three of three runs. `cdc run ... --publish FILE --serve ADDRESS` starts it as a child (`child`), and
`cdc serve FILE ADDRESS` is the same program by itself (`process`).

An *edition* is one published file: the publisher replaces it by rename, and the next transaction reads the new one.

**HTTP.** `POST /query`, with SQL as the body, or JSON: `{"sql": "SELECT ...", "limit": 1000}`. The `Accept` header
chooses:

* `application/json`, also without a header: `{"columns": [{"name": "id", "type": "BIGINT"}], "rows": [[1]],
  "row_count": 1, "truncated": false, "seconds": 0.012}`. A value is a number, a boolean, a text, null, or
  a list or an object of those. Numbers that JavaScript cannot hold (BIGINT beyond 2^53, DECIMAL) are texts.
* `text/csv`, `application/vnd.apache.arrow.stream`: the rows; the header `x-cdc-truncated` is `true` or `false`.

There are 1,000 rows at most unless `limit` says otherwise. What went wrong is `{"error": "...", "hint": "..." or null,
"sqlstate": "42P01"}` with the status 400 (the statement), 401 (the password), 403 (not a statement that only reads),
408 (the question did not come in time), 413 (the answer is too large), 503 (nothing serves just now) or 504 (the time
limit).

`cdc.serve.forward.query_route(socket_of)` is a starlette route of the same interface for the port of the service, for
JSON alone. It runs nothing itself: it passes each request to the child's socket (`cdc.serve.child.socket_of`), or
answers 503.
"""
