"""Names that are this program's own, whatever database it is."""

from __future__ import annotations

CATALOG = "_cdc_target"  # of every name, since a schema may be called like a catalog; an engine without leaves it out
