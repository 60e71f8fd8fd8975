"""Values and arrays in memfds; the other half of :mod:`mpipc.mechanisms.shm`."""

from __future__ import annotations

from multiprocessing import sharedctypes as stock
from multiprocessing.context import BaseContext
from typing import Any

from .. import _core
from .._context import max_bytes
from ..contracts import MemoryProvider
from ..objects import sharedctypes

__all__ = ["Array", "RawArray", "RawValue", "Value"]


class Synchronized(_core.ValueCore, stock.Synchronized):  # type: ignore[type-arg]
    """A simple value and its lock."""


class SynchronizedArray(_core.ArrayCore, stock.SynchronizedArray):  # type: ignore[type-arg]
    """An array and its lock."""


class SynchronizedString(_core.ArrayCore, stock.SynchronizedString):
    """An array of bytes, with ``value`` and ``raw``, and its lock."""


WRAPPERS = sharedctypes.Wrappers(Synchronized, SynchronizedArray, SynchronizedString)


def RawValue(typecode_or_type: Any, *args: Any, ctx: BaseContext | None = None) -> Any:
    """A ctypes object in shared memory."""
    return sharedctypes.raw_value(new_block(ctx), typecode_or_type, *args)


def RawArray(
    typecode_or_type: Any, size_or_initializer: Any, *, ctx: BaseContext | None = None
) -> Any:
    """A ctypes array in shared memory."""
    return sharedctypes.raw_array(new_block(ctx), typecode_or_type, size_or_initializer)


def Value(
    typecode_or_type: Any, *args: Any, lock: Any = True, ctx: BaseContext | None = None
) -> Any:
    """A ctypes object in shared memory, with a lock unless ``lock=False``."""
    obj = RawValue(typecode_or_type, *args, ctx=ctx)
    return sharedctypes.with_lock(obj, lock, ctx, WRAPPERS)


def Array(
    typecode_or_type: Any,
    size_or_initializer: Any,
    *,
    lock: Any = True,
    ctx: BaseContext | None = None,
) -> Any:
    """A ctypes array in shared memory, with a lock unless ``lock=False``."""
    obj = RawArray(typecode_or_type, size_or_initializer, ctx=ctx)
    return sharedctypes.with_lock(obj, lock, ctx, WRAPPERS)


def new_block(ctx: BaseContext | None) -> MemoryProvider:
    """The memory provider of a context."""
    return lambda size: _core.new_block(size, max_bytes(ctx))
