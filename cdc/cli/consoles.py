"""What commands write to: answers to standard output, everything else to standard error."""

from __future__ import annotations

from rich.console import Console

console = Console()
messages = Console(stderr=True)
