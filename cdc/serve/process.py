"""The process that serves: it opens the file, listens, and ends when it is asked to or its parent is gone."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from cdc.errors import EXIT_RESTARTABLE, UsageError
from cdc.serve.access import Access
from cdc.serve.address import Address, Protocol, bound
from cdc.serve.editions import Editions
from cdc.serve.limits import Limits

log = logging.getLogger(__name__)

_LOOKS_EVERY = 0.25  # seconds, whether the parent is still there, and how much memory is taken
_PACKAGES = "pip install 'pygwire>=0.2' 'protobuf>=6.33.5'"


def serve(
    file: Path,
    addresses: Sequence[Address],
    own_socket: Path | None,
    access: Access,
    limits: Limits,
    *,
    parent: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        own_socket: where requests of `cdc.serve.forward` come in, which need no password: only this user may enter.
        parent: the process without which this one ends.

    Raises:
        UsageError: a package is missing, or an address is taken.
    """
    _give_way()
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    # The last wall: an allocation beyond it fails, and ends a query or this process, but never the pipeline.
    resource.setrlimit(resource.RLIMIT_DATA, (limits.reserved, limits.reserved))
    editions = Editions(file, limits)
    with ExitStack() as open_:
        open_.callback(editions.close)
        for address in addresses:
            open_.callback(_listen(address, editions, access))
            log.info("serving %s at %s", file, address)
        if own_socket is not None:
            from cdc.serve.http import HttpServer  # noqa: PLC0415  # each protocol has packages of its own

            open_.callback(HttpServer(_unix(own_socket), editions, Access()).start())
            open_.callback(own_socket.unlink, missing_ok=True)
        while not ends.wait(_LOOKS_EVERY):
            if parent is not None and os.getppid() != parent:
                return
            if (resident := _resident()) > limits.resident:
                log.error("Readers took %d MB of memory: the process ends.", resident >> 20)
                os._exit(EXIT_RESTARTABLE)  # what is under way would need more


def _give_way() -> None:
    """Where memory or processors are short, the pipeline goes first."""
    os.nice(5)
    with suppress(OSError):  # where there is no such file
        Path("/proc/self/oom_score_adj").write_text("1000")


def _resident() -> int:
    """Bytes of memory that this process has (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _listen(address: Address, editions: Editions, access: Access) -> Callable[[], None]:
    """Begin to listen; what ends that."""
    try:
        match address.protocol:
            case Protocol.PG:
                from cdc.serve.pgwire.server import PgServer  # noqa: PLC0415

                server = PgServer(address, editions, access)
                threading.Thread(target=server.serve_forever, name=str(address), daemon=True).start()
                return server.shutdown
            case Protocol.FLIGHT:
                from cdc.serve.flight.server import FlightServer  # noqa: PLC0415

                bound(address).close()  # gRPC would share the address with another gRPC server of this user
                return FlightServer(address, editions, access).start()
            case Protocol.HTTP:
                from cdc.serve.http import HttpServer  # noqa: PLC0415

                return HttpServer(bound(address), editions, access).start()
    except ModuleNotFoundError as error:
        raise UsageError(f"{address} needs the package {error.name}.", hint=_PACKAGES) from error
    except OSError as error:
        raise UsageError(f"{address} cannot be listened at: {error.strerror or error}.") from error


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    link = socket.socket(socket.AF_UNIX)
    link.bind(str(path))
    return link
