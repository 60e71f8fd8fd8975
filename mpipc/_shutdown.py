"""``queue.ShutDown`` of Python 3.13, for older ones too; here, since not all need ``queue``."""

from __future__ import annotations

__all__ = ["ShutDown"]

try:
    from queue import ShutDown  # type: ignore[attr-defined,unused-ignore]
except ImportError:

    class ShutDown(Exception):  # type: ignore[no-redef]
        """Raised by put() and get() of a queue that was shut down."""
