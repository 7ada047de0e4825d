"""Log lines: one event per line, time first, in UTC; the same on a terminal and in a container."""

from __future__ import annotations

import logging
import sys
import time


def configure(*, verbose: bool) -> None:
    """Send this program's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("cdc")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
