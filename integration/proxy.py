"""A TCP proxy that does to connections what networks do: cuts, holes, delays, narrow lines, flipped bits.

It runs on a thread of its own. Faults belong to a way (client to server, or back), are counted in bytes of that way over
all connections, and can be changed while it runs. It counts what passed and what it did, so that a test can assert that
its fault took place. Nothing in it is random.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

T = TypeVar("T")

_READ = 64 << 10  # bytes taken from a socket at once
_GRAIN = 1 << 10  # bytes that pass a narrow line at once
_LOOK_EVERY = 0.005  # seconds between looks at a fault that another thread may end
_IN_FLIGHT = 64  # chunks under way on a line with a delay
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing a socket sends RST


@dataclass
class Way:
    """One direction of all connections: its faults, and what has passed.

    Attributes:
        cut_after: bytes that pass before the connection that carries the last of them is cut.
        by_reset: cut with RST, so that what is under way is lost, rather than with FIN.
        flips: places of bytes of which one bit is turned around.
        is_hole: nothing passes; connections stay open and new ones are accepted.
        hole_after: bytes that pass before it becomes one.
        delay: seconds that each byte is under way.
        rate: bytes a second; None is no limit.
        passed: bytes so far.
        begins: `passed` at the first byte of each connection.
        recorded: the bytes themselves, if the proxy records.
        cuts, flipped, holes: how often a fault took place.
    """

    cut_after: int | None = None
    by_reset: bool = False
    flips: dict[int, int] = field(default_factory=dict)
    is_hole: bool = False
    hole_after: int | None = None
    delay: float = 0.0
    rate: float | None = None
    passed: int = 0
    begins: list[int] = field(default_factory=list)
    recorded: bytearray | None = None
    cuts: int = 0
    flipped: int = 0
    holes: int = 0

    def damage(self, data: bytes) -> bytes:
        """The next bytes of this way, with the flips that lie in them."""
        for place in [place for place in self.flips if self.passed <= place < self.passed + len(data)]:
            changed = bytearray(data)
            changed[place - self.passed] ^= 1 << self.flips.pop(place)
            data = bytes(changed)
            self.flipped += 1
        return data

    def room(self) -> int | None:
        """How many bytes may pass before the next fault; None without one."""
        limits = [limit for limit in (self.cut_after, self.hole_after) if limit is not None]
        return max(0, min(limits) - self.passed) if limits else None


class Link:
    """One connection: a client's socket and the server's. One that is lost is a hole of its own."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.is_lost = False
        self._ends: list[asyncio.Task[None]] = []
        self._closed: set[int] = set()

    async def run(self) -> None:
        """Pass bytes both ways until both have ended."""
        up = self._pass(self.proxy.up, self.client, self.server)
        down = self._pass(self.proxy.down, self.server, self.client)
        self._ends = [asyncio.create_task(up), asyncio.create_task(down)]
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._ends, return_exceptions=True)
        self.end(by_reset=False)

    async def _pass(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        delivery = asyncio.create_task(self._deliver(way, under_way, sink))
        loop = asyncio.get_running_loop()
        try:
            while True:
                data = await loop.sock_recv(source, _READ)
                await under_way.put((loop.time() + way.delay, data))
                if not data:
                    break
            await delivery
        except OSError:  # a reset by one end is one for the other
            self.end(by_reset=True)
        finally:
            delivery.cancel()

    async def _deliver(self, way: Way, under_way: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        loop, is_first = asyncio.get_running_loop(), True
        try:
            while True:
                due, data = await under_way.get()
                if (early := due - loop.time()) > 0:
                    await asyncio.sleep(early)
                if not data:
                    while way.is_hole or self.is_lost:
                        await asyncio.sleep(_LOOK_EVERY)
                    break
                if is_first:
                    way.begins.append(way.passed)
                    is_first = False
                if not await self._send(way, data, sink):
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.end(by_reset=True)

    async def _send(self, way: Way, data: bytes, sink: socket.socket) -> bool:
        """Send through whatever narrows the way; False if the connection was cut."""
        loop = asyncio.get_running_loop()
        while data:
            while way.is_hole or self.is_lost:
                await asyncio.sleep(_LOOK_EVERY)
            grain = len(data) if way.rate is None else _GRAIN
            room = way.room()
            piece = data[: min(grain, room)] if room is not None else data[:grain]
            data = data[len(piece) :]
            if piece:
                piece = way.damage(piece)
                way.passed += len(piece)
                if way.recorded is not None:
                    way.recorded += piece
                await loop.sock_sendall(sink, piece)
            if way.rate is not None:
                await asyncio.sleep(len(piece) / way.rate)
            if way.hole_after is not None and way.passed >= way.hole_after:
                way.hole_after, way.is_hole = None, True
                way.holes += 1
            if way.cut_after is not None and way.passed >= way.cut_after:
                way.cut_after = None
                way.cuts += 1
                self.end(by_reset=way.by_reset)
                return False
        return True

    def end(self, *, by_reset: bool) -> None:
        """Close both sockets, with RST or with FIN."""
        for task in self._ends:
            task.cancel()
        for end in (self.client, self.server):
            if end.fileno() in self._closed or end.fileno() < 0:
                continue
            self._closed.add(end.fileno())
            with suppress(OSError):
                if by_reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()


class FaultProxy:
    """Passes the connections to its port on to a server.

    Attributes:
        up, down: the way from client to server, and back.
        port: where it listens.
        connections: accepted so far.
    """

    def __init__(self, server_port: int, *, records: bool = False) -> None:
        self.up, self.down = Way(), Way()
        if records:
            self.up.recorded, self.down.recorded = bytearray(), bytearray()
        self.port = 0
        self.connections = 0
        self._server_port = server_port
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.cut()
        self._call(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lead_to(self, server_port: int) -> None:
        """Pass connections on to another server from now on, as an address does that moves."""
        self._server_port = server_port

    def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._call(self._listen())

    def refuse(self) -> None:
        """Accept none; those that there are stay."""
        self._call(self._refuse())

    def cut(self, *, by_reset: bool = False) -> None:
        """End all connections."""

        def end() -> None:
            for link in list(self._links):
                link.end(by_reset=by_reset)

        self._do(end)

    def close_half(self, way: Way) -> None:
        """Say FIN in one direction of all connections; the other goes on."""

        def close() -> None:
            for link in list(self._links):
                with suppress(OSError):
                    (link.server if way is self.up else link.client).shutdown(socket.SHUT_WR)

        self._do(close)

    def lose(self) -> None:
        """Forget all connections that there are without an error to either side, as a router does."""

        def forget() -> None:
            for link in list(self._links):
                link.is_lost = True

        self._do(forget)

    @contextmanager
    def hole(self) -> Iterator[None]:
        """Nothing passes either way, and neither side gets an error."""
        self.up.is_hole = self.down.is_hole = True
        yield
        self.up.is_hole = self.down.is_hole = False

    @contextmanager
    def flapping(self, on: float, off: float) -> Iterator[None]:
        """Up for some seconds, down for some seconds, and so on; up at the end."""
        ended = threading.Event()

        def flap() -> None:
            while not ended.wait(on):
                self.refuse()
                self.cut()
                ended.wait(off)
                self.listen()

        thread = threading.Thread(target=flap, daemon=True)
        thread.start()
        yield
        ended.set()
        thread.join()

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def _refuse(self) -> None:
        if self._listener is None or self._accepting is None:
            return
        self._accepting.cancel()
        with suppress(asyncio.CancelledError):
            await self._accepting
        self._listener.close()
        self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            self.connections += 1
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        server = socket.socket()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, client, server)
        self._links.add(link)
        try:
            await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self._server_port))
            await link.run()
        except OSError:
            link.end(by_reset=True)
        finally:
            self._links.discard(link)

    async def _settle(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _do(self, act: Callable[[], None]) -> None:
        async def body() -> None:
            act()

        self._call(body())
