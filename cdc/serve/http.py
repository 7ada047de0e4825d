"""`/query` over HTTP: SQL in, JSON, CSV or an Arrow stream out (`cdc.serve` says what each looks like)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import uvicorn
from duckdb.sqltypes import DuckDBPyType
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from cdc.serve.access import Access
from cdc.serve.editions import Editions
from cdc.serve.limits import TRANSACTION
from cdc.serve.reading import Question, Reader
from cdc.targets.duckdb.refusals import NO_FILE, READ_ONLY, TOO_LARGE, TOO_LONG, TOO_MANY, Refused

ARROW, CSV, JSON = "application/vnd.apache.arrow.stream", "text/csv", "application/json"
_ROWS = 1_000  # unless a request says otherwise
_LARGEST_QUESTION = 1 << 20  # bytes
_LARGEST_ANSWER = 64 << 20  # bytes
_TOO_SLOW = "08006"
_STATUS = {READ_ONLY: 403, TOO_LARGE: 413, TOO_LONG: 504, NO_FILE: 503, TOO_MANY: 503, _TOO_SLOW: 408}
_ASKED_WITHIN = 10.0  # seconds from the beginning of a request, and again for its body
_LOOKS_EVERY = 2.0  # seconds
_ENDS_WITHIN = 2  # seconds, for requests that are under way
_LARGEST_EXACT = (1 << 53) - 1
_EXACT = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER", "BIGINT"}


def application(editions: Editions, access: Access) -> Starlette:
    """What answers."""
    places = asyncio.Semaphore(editions.limits.connections)

    async def query(request: Request) -> Response:
        if not _is_known(request, access):
            unknown = refused(401, "A name and a password are needed.", "28P01")
            unknown.headers["www-authenticate"] = 'Basic realm="cdc"'
            return unknown
        try:
            sql, limit = await _question(request, editions.limits.rows)
            reader = Reader(editions)
            answer = partial(_answered, reader, sql, limit, request.headers.get("accept", JSON))
            async with places:
                return await _unless_gone(request, reader, answer)
        except Refused as error:
            return refused(_STATUS.get(error.sqlstate, 400), error.message, error.sqlstate, error.hint)

    return Starlette(routes=[Route("/query", query, methods=["POST"])])


def refused(status: int, message: str, sqlstate: str, hint: str | None = None) -> Response:
    """An error as every answer has it."""
    body = orjson.dumps({"error": message, "hint": hint, "sqlstate": sqlstate})
    return Response(body, status, media_type=JSON)


def _is_known(request: Request, access: Access) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    user = password = ""
    if scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    return access.allows(user, password)


async def _question(request: Request, most: int) -> tuple[str, int]:
    """The SQL of a request, and how many rows it wants."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ASKED_WITHIN):
            async for part in request.stream():
                body += part
                if len(body) > _LARGEST_QUESTION:
                    raise Refused(f"A question has {_LARGEST_QUESTION >> 20} MB at most.", TOO_LARGE)
    except TimeoutError as error:
        raise Refused(f"The question did not come within {_ASKED_WITHIN:g} s.", _TOO_SLOW) from error
    try:
        if request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
            return body.decode(), min(_ROWS, most)
        given = orjson.loads(body)
        sql, limit = given["sql"], given.get("limit", _ROWS)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("The body is no question.", "08P01", hint='Send SQL, or JSON: {"sql": "SELECT 1"}') from error
    if not isinstance(sql, str) or not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise Refused("`sql` is a text, and `limit` is a number of rows.", "08P01")
    return sql, min(limit, most)


async def _unless_gone(request: Request, reader: Reader, answer: Callable[[], Response]) -> Response:
    """The answer; what is asked by somebody who is gone is not carried to its end."""
    working = asyncio.ensure_future(run_in_threadpool(answer))
    while not working.done():
        await asyncio.wait([working], timeout=0.5)
        if not working.done() and await request.is_disconnected():
            reader.cancel()
    return working.result()


def _answered(reader: Reader, sql: str, limit: int, accepted: str) -> Response:
    began = time.monotonic()
    try:
        question = reader.ask(sql)
        if ARROW in accepted:
            schema, batches, is_cut = _rows(question, [], limit)
            content = io.BytesIO()
            with pa.ipc.new_stream(content, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            return _content(content.getvalue(), ARROW, is_cut)
        if CSV in accepted:
            texts = [f"CAST(#{place} AS VARCHAR)" for place in range(1, len(question.names) + 1)]
            schema, batches, is_cut = _rows(question, texts, limit)
            table = pa.Table.from_batches(batches, schema).rename_columns(question.names)
            content = io.BytesIO()
            pa_csv.write_csv(table, content)
            return _content(content.getvalue(), CSV, is_cut)
        values = [_as_json(f"#{place}", kind) for place, kind in enumerate(question.types, 1)]
        schema, batches, is_cut = _rows(question, values, limit)
        rows = [list(row.values()) for batch in batches for row in batch.to_pylist()]
        for place, kind in enumerate(question.types):
            if _is_nested(kind):
                for row in rows:
                    row[place] = None if row[place] is None else orjson.Fragment(row[place])
            elif str(kind) == "BIGINT":
                for row in rows:  # JavaScript has no exact number for it
                    row[place] = str(row[place]) if abs(row[place] or 0) > _LARGEST_EXACT else row[place]
        answer = {
            "columns": [
                {"name": name, "type": str(kind)} for name, kind in zip(question.names, question.types, strict=True)
            ],
            "rows": rows,
            "row_count": len(rows),
            "truncated": is_cut,
            "seconds": round(time.monotonic() - began, 6),
        }
        return _content(orjson.dumps(answer), JSON, is_cut)
    finally:
        reader.end()


def _rows(question: Question, values: list[str], limit: int) -> tuple[pa.Schema, list[pa.RecordBatch], bool]:
    """The rows up to a limit, and whether there are more."""
    stream = question.reader(values)
    found: list[pa.RecordBatch] = []
    count = size = 0
    for batch in question.batches(stream, limit + 1):
        count += batch.num_rows
        size += batch.nbytes
        if size > _LARGEST_ANSWER:
            raise Refused(f"The answer is larger than {_LARGEST_ANSWER >> 20} MB.", TOO_LARGE, hint="Ask for less.")
        found.append(batch.slice(0, batch.num_rows - max(0, count - limit)))
    return stream.schema, found, count > limit


def _as_json(value: str, kind: DuckDBPyType) -> str:
    """SQL for a value as JSON has it; what it has no exact number for is a text."""
    if _is_nested(kind):
        return f"CAST(to_json({value}) AS VARCHAR)"
    if str(kind) in ("FLOAT", "DOUBLE"):  # JSON has neither Infinity nor NaN
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    return value if str(kind) in _EXACT else f"CAST({value} AS VARCHAR)"


def _is_nested(kind: DuckDBPyType) -> bool:
    return kind.id in ("list", "array", "struct", "map", "union") or str(kind) == "JSON"


def _content(body: bytes, media_type: str, is_cut: bool) -> Response:
    return Response(body, media_type=media_type, headers={"x-cdc-truncated": str(is_cut).lower()})


class _Patience(H11Protocol):
    """Ends the connections of clients that do not ask, or do not read their answer: uvicorn bounds neither, and their
    places are counted."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look(None, self.loop.time())

    def _look(self, cycle: RequestResponseCycle | None, since: float) -> None:
        """
        Args:
            cycle: the last request; None before the first.
            since: when it was seen first, by the clock of the loop.
        """
        now = self.loop.time()
        if self.cycle is not cycle:
            cycle, since = self.cycle, now
        is_answered = cycle is None or cycle.response_complete
        if now - since >= (_ASKED_WITHIN if is_answered else TRANSACTION):
            self.transport.abort()
        if not self.transport.is_closing():
            self.loop.call_later(_LOOKS_EVERY, self._look, cycle, since)


class HttpServer:
    """Answers at a socket that is bound."""

    def __init__(self, link: socket.socket, editions: Editions, access: Access) -> None:
        certificate = str(access.certificate) if access.certificate is not None else None
        key = str(access.key) if access.key is not None else None
        config = uvicorn.Config(
            application(editions, access),
            http=_Patience,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=_ENDS_WITHIN,
            limit_concurrency=editions.limits.connections,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._link = link

    def start(self) -> Callable[[], None]:
        """Begin, on a thread of its own; what ends it."""
        thread = threading.Thread(target=self._server.run, args=([self._link],), name="http", daemon=True)
        thread.start()

        def end() -> None:
            self._server.should_exit = True
            thread.join(2 * _ENDS_WITHIN)

        return end
