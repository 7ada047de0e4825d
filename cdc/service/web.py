"""The answers of the port: probes, metrics, and the document that a page shows.

/               the page that people look at, and its parts below /page/
/livez          200 as long as no stage hangs, which only the end of the process can solve
/readyz         200, or 503 with the reasons as text, a line each
/metrics        for Prometheus
/status.json    `ObservedProcess.document`
/events         the same about once a second, as server-sent events, for so many at a time
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson
import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc.serve.forward import query_route
from cdc.service.address import Address
from cdc.service.exposition import registry
from cdc.service.observed import ObservedProcess

_PAGE = Path(__file__).parent / "page"
_EVENT_EVERY = 1.0  # seconds
_MOST_LISTENERS = 100  # to events, each of which is a connection that does not end
_END_WITHIN = 3  # seconds for requests that are being answered
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WebServer:
    """Answers requests on a thread of its own.

    Args:
        process: what is answered about.
        address: where it listens.
        listening: the socket there.
    """

    def __init__(self, process: ObservedProcess, address: Address, listening: socket.socket) -> None:
        self._listening = listening
        # Its lines go where ours go. Each request is none of them: a probe comes every few seconds.
        lines = logging.getLogger("uvicorn")
        lines.handlers, lines.propagate = logging.getLogger("cdc").handlers, False
        config = uvicorn.Config(
            application(process, address, self._is_ending),
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_END_WITHIN,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=partial(self._server.run, sockets=[listening]), name="web", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nothing more; what is being sent without an end is ended."""
        self._server.should_exit = True
        self._thread.join(2 * _END_WITHIN)
        self._listening.close()

    def _is_ending(self) -> bool:
        return self._server.should_exit


def application(process: ObservedProcess, address: Address, is_ending: Callable[[], bool]) -> Starlette:
    """What answers requests.

    Args:
        process: what is answered about.
        address: where it listens, which says by which names it may be called.
        is_ending: whether events have to end.
    """

    everything = registry(process)
    latest = _Latest(process)

    async def livez(_: Request) -> Response:
        # Nothing here waits for anything, not even for a thread: what else hangs is no reason to be killed.
        if process.is_alive:
            return PlainTextResponse("It is alive.\n")
        return PlainTextResponse("A thread hangs. The process ends.\n", 503)

    def readyz(_: Request) -> Response:
        unready = process.document()["unready"]
        return PlainTextResponse("".join(f"{text}\n" for text in unready or ["It is ready."]), 503 if unready else 200)

    def metrics(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(everything), headers={"Content-Type": kind})

    def status(_: Request) -> Response:
        return Response(_json(process), media_type="application/json")

    async def events(_: Request) -> Response:
        async def each() -> AsyncIterator[bytes]:
            with latest.listener():
                while not is_ending():
                    yield b"data: " + await latest.document() + b"\n\n"
                    await asyncio.sleep(_EVENT_EVERY)

        if latest.listeners >= _MOST_LISTENERS:
            return PlainTextResponse(f"{_MOST_LISTENERS} listen already.\n", 503)
        return StreamingResponse(each(), media_type="text/event-stream")

    def page(_: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    routes = [
        Route("/", page),
        Mount("/page", StaticFiles(directory=_PAGE)),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/status.json", status),
        Route("/events", events),
        query_route(process.query_socket),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=address.names, www_redirect=False)
    return Starlette(routes=routes, middleware=[Middleware(_Careful), hosts])


def _json(process: ObservedProcess) -> bytes:
    return orjson.dumps(process.document())


class _Latest:
    """The document for all who listen to events: it is made about once a second, however many they are."""

    def __init__(self, process: ObservedProcess) -> None:
        self.listeners = 0
        self._process = process
        self._making = asyncio.Lock()
        self._document = b""
        self._made_at = -_EVENT_EVERY

    @contextmanager
    def listener(self) -> Iterator[None]:
        """Count as somebody who listens."""
        self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1

    async def document(self) -> bytes:
        async with self._making:
            if time.monotonic() - self._made_at >= 0.9 * _EVENT_EVERY:
                self._document = await run_in_threadpool(_json, self._process)
                self._made_at = time.monotonic()
            return self._document


class _Careful:
    """Adds to each answer the headers that keep browsers careful with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)
