"""faster-fifo: a byte ring under a mutex."""

from __future__ import annotations

from typing import Any

import faster_fifo

from . import process_class

# Room in bytes is all that it knows; so much for messages of which many may wait.
SMALL, LARGE = 1_000_000, 64 << 20
MANY = 1 << 12


class Context:
    """Its queue."""

    def __init__(self, method: str) -> None:
        self.Process = process_class(method)

    def Queue(self, maxsize: int = MANY) -> Any:
        """A queue."""
        return faster_fifo.Queue(SMALL if maxsize >= MANY else LARGE)


context = Context
