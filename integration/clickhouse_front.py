"""ClickHouse's engine (chdb, in this process) behind ClickHouse's HTTP interface, which can be made to fail.

    python -m integration.clickhouse_front FOLDER PORT

prints the port that it listens at, on this machine alone (0 chooses one). It needs chdb, and nothing of this project. What it leaves out
of a server: users, quotas, replication, several queries at once. It takes ON CLUSTER and Replicated out of a statement before the engine
has it, which refuses the one, and never ends reading such tables' state.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(r"\s*INSERT\s+INTO\s", re.IGNORECASE)
_CLUSTER = re.compile(r" ON CLUSTER `\w+`|(?<=ENGINE = )Replicated(?=\w*MergeTree)")
_SHARD = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
_CLUSTERS = f"""
<clickhouse><remote_servers>
<one_shard>{_SHARD}</one_shard>
<two_shards>{_SHARD}{_SHARD}</two_shards>
</remote_servers></clickhouse>
"""
_CODE = re.compile(r"Code: (\d+)")
_NOT_SETTINGS = {
    "query", "database", "default_format", "session_id", "query_id", "compress", "decompress", "wait_end_of_query",
    "client_protocol_version", "buffer_size", "enable_http_compression", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "role", "quota_key",
}  # fmt: skip


class Engine:
    """One chdb, one query at a time, and what is to go wrong.

    Attributes:
        rate: how many of a thousand inserts fail.
    """

    def __init__(self, folder: str) -> None:
        self.lock = threading.Lock()
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as config:
            config.write(_CLUSTERS)
            config.flush()
            self.connection = chdb.connect(f"{folder}?config-file={config.name}")
        self.rate = 0
        self.random = random.Random(1)
        self.statements: deque[tuple[str, dict[str, str]]] = deque(maxlen=100_000)

    def failure(self) -> str | None:
        """What happens to an insert: nothing, or one of the ways in which it can fail."""
        if self.random.randrange(1000) >= self.rate:
            return None
        return self.random.choice(["cut", "unanswered", "refused", "busy"])

    def run(self, query: str, parameters: dict[str, str], settings: dict[str, str], data: bytes | None) -> bytes:
        """The answer to a query; raises RuntimeError with ClickHouse's message."""
        self.statements.append((query, settings))
        query = _CLUSTER.sub("", query)
        found = _FORMAT.search(query)
        with self.lock:
            for name, value in settings.items():
                escaped = value.replace("\\", "\\\\").replace("'", "\\'")
                self.connection.query(f"SET {name} = '{escaped}'")
            if data:
                assert found is not None
                return self._insert(query[: found.start()], found[1], data)
            text = query[: found.start()] if found else query
            answer = self.connection.query(text, found[1] if found else "TabSeparated", params=parameters)
            return bytes(answer.bytes()) if answer is not None else b""

    def _insert(self, head: str, kind: str, data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
            file.write(data)
            file.flush()
            self.connection.query(f"{head} FROM INFILE '{file.name}' FORMAT {kind}")
        return b""


class Front(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/fail":
            self.engine.rate = int(dict(parse_qsl(parts.query))["rate"])
            self._answer(200, b"")
        elif parts.path == "/statements":
            sent = self.engine.statements
            self._answer(200, json.dumps([sent.popleft() for _ in range(len(sent))]).encode())
        elif parts.path == "/ping":
            self._answer(200, b"Ok.\n")
        else:
            self.do_POST()

    def do_POST(self) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        query = given.get("query", "")
        if not query:
            query, body = body.decode(), b""
        failure = self.engine.failure() if body and _INSERT.match(query) else None
        if failure == "cut":
            self._hang_up()
            return
        if failure == "busy":
            self._answer(500, b"Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)", code=252)
            return
        try:
            settings = {
                name: value
                for name, value in given.items()
                if name not in _NOT_SETTINGS and not name.startswith("param_")
            }
            parameters = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
            answer = self.engine.run(query, parameters, settings, body or None)
        except Exception as error:
            text = str(error)
            found = _CODE.search(text)
            begin = text.find("Code: ")
            self._answer(500, text[max(begin, 0) :].encode(), code=int(found[1]) if found else 1002)
            return
        if failure == "unanswered":
            self._hang_up()
        elif failure == "refused":
            self._answer(500, b"Code: 209. DB::Exception: Timeout exceeded. (SOCKET_TIMEOUT)", code=209)
        else:
            self._answer(200, answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, content: bytes, code: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("X-ClickHouse-Server-Display-Name", "chdb")
        self.send_header("X-ClickHouse-Summary", "{}")
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def main() -> None:
    """Serve until the parent process ends."""
    Front.engine = Engine(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Front)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
