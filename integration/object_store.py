"""A store of objects that speaks S3, in a process of its own: moto's server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cdc.demo.private import free_port

BUCKET = "lake"


class PrivateObjectStore:
    """One with a bucket. A context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """By which programs find it, and say who they are."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "lakes",
            "AWS_SECRET_ACCESS_KEY": "zq7-secret/of+the'store",
            "AWS_REGION": "eu-west-1",
        }

    def __enter__(self) -> PrivateObjectStore:
        command = [sys.executable, "-m", "moto.server", "-p", str(self.port)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=os.environ | self.environment)
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.address}/{BUCKET}", method="PUT"))
                return self
            except urllib.error.URLError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. It forgets what it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
