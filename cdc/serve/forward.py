"""`/query` on the port of the service: each request goes to the process that serves, through its own socket.

A query must not run in the process that writes: that one only passes bytes on.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_LARGEST_QUESTION = 1 << 20  # bytes
_PATIENCE = 120.0  # seconds for an answer: the process that serves has a shorter time limit itself
_PASSED = ("content-type", "accept")
_AT_ONCE = 4  # answers, each of which this process has in memory as a whole
_RETURNED = ("content-type", "x-cdc-truncated")


def query_route(socket_of: Callable[[str], Path | None]) -> Route:
    """`POST /query?pipeline=NAME`, with the interface of `cdc.serve`, but for JSON alone.

    A page of another site can have a browser send a text, which is a question as well. It cannot send JSON to another
    origin (the Fetch standard, "CORS-safelisted request-header").

    Args:
        socket_of: of the process that serves a pipeline's copy, which need not be there yet; None if none is to.
    """

    places = asyncio.Semaphore(_AT_ONCE)

    async def query(request: Request) -> Response:
        own_socket = socket_of(request.query_params.get("pipeline", ""))
        if own_socket is None:
            return _error(404, "No copy of such a pipeline is offered here.", "57P03")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "A question to this port is JSON.", "22023")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_QUESTION:
                return _error(413, f"A question has {_LARGEST_QUESTION >> 20} MB at most.", "54000")
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        async with places:
            return await run_in_threadpool(_forwarded, own_socket, bytes(body), headers)

    return Route("/query", query, methods=["POST"])


class _Link(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._path))


def _forwarded(own_socket: Path, body: bytes, headers: dict[str, str]) -> Response:
    link = _Link(own_socket)
    try:
        link.request("POST", "/query", body, headers)
        answer = link.getresponse()
        returned = {name: value for name in _RETURNED if (value := answer.getheader(name)) is not None}
        return Response(answer.read(), answer.status, returned)
    except TimeoutError:
        return _error(504, "The query took too long.", "57014")
    except (OSError, http.client.HTTPException):
        return _error(503, "Nothing serves the published copy just now.", "57P03")
    finally:
        link.close()


def _error(status: int, message: str, sqlstate: str) -> Response:
    return JSONResponse({"error": message, "hint": None, "sqlstate": sqlstate}, status)
