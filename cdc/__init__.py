"""Log-based change data capture: follow a database's own log into analytical tables."""

from typing import TYPE_CHECKING, Any

from cdc.version import VERSION

if TYPE_CHECKING:
    from cdc.api import SegmentView, Stream, open  # noqa: A004
    from cdc.replica import Replica

__version__ = VERSION

__all__ = ["Replica", "SegmentView", "Stream", "__version__", "open"]


def __getattr__(name: str) -> Any:
    """What Python programs use, loaded when they do: the modules below import this one first."""
    if name == "Replica":
        from cdc.replica import Replica  # noqa: PLC0415

        return Replica
    if name in ("SegmentView", "Stream", "open"):
        from cdc import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
