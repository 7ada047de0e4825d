"""The version of this program, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("cdc-replicator")
except PackageNotFoundError:  # a source tree on the path that was never installed
    VERSION = "0+unknown"
