"""Values and arrays for :mod:`mpipc.mechanisms.shm`: the core holds the lock around an access."""

from __future__ import annotations

from multiprocessing import sharedctypes as stock

from .. import _core
from ..objects.sharedctypes import Wrappers

__all__ = ["wrappers"]


class Synchronized(_core.ValueCore, stock.Synchronized):  # type: ignore[type-arg]
    """A simple value and its lock."""


class SynchronizedArray(_core.ArrayCore, stock.SynchronizedArray):  # type: ignore[type-arg]
    """An array and its lock."""


class SynchronizedString(_core.ArrayCore, stock.SynchronizedString):
    """An array of bytes, with ``value`` and ``raw``, and its lock."""


wrappers = Wrappers(Synchronized, SynchronizedArray, SynchronizedString)
