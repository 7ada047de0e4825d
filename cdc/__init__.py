"""Log-based change data capture: follow a database's own log into analytical tables."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cdc-replicator")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"
