"""Locks inside objects that pass on when their holder is killed, whatever the mechanism."""

from __future__ import annotations

from .. import _core, _stock

__all__ = ["Guard"]


class Guard(_core.SemLock, _stock.Lock):
    """A lock that passes on when its holder is gone, without a word.

    What it protects must be right between any two steps of its holder, or tell that it is not.
    """

    def __init__(self) -> None:
        self._open(_core.SEMAPHORE, 1, 1, True, "ignore")
