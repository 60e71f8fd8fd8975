"""Values and arrays: stock's ctypes wrappers over memory that a mechanism provides."""

from __future__ import annotations

import ctypes
import multiprocessing
from multiprocessing import sharedctypes
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from .._context import max_bytes, mechanism_of

__all__ = ["Array", "RawArray", "RawValue", "Value", "Wrappers"]


class Wrappers(NamedTuple):
    """A mechanism's classes in place of stock's Synchronized, -Array and -String."""

    value: type[Any]
    array: type[Any]
    string: type[Any]


STOCK = Wrappers(
    sharedctypes.Synchronized, sharedctypes.SynchronizedArray, sharedctypes.SynchronizedString
)


def ctype(typecode_or_type: Any) -> Any:
    """The ctypes type that a type code stands for."""
    found = sharedctypes.typecode_to_type.get(typecode_or_type, typecode_or_type)  # type: ignore[attr-defined]
    if isinstance(found, str):
        codes = " ".join(sharedctypes.typecode_to_type)  # type: ignore[attr-defined]
        raise TypeError(f"bad typecode {found!r}; there are {codes}, and ctypes types")
    return found


def allocate(ctx: BaseContext | None, type_: Any) -> Any:
    """A zeroed object of `type_` in a block of its own."""
    memory = mechanism_of(ctx).memory
    size = ctypes.sizeof(type_)
    most = max_bytes(ctx)
    block = memory(size, most) if most else memory(size)
    return sharedctypes.rebuild_ctype(type_, block, None)  # type: ignore[attr-defined]


def RawValue(typecode_or_type: Any, *args: Any, ctx: BaseContext | None = None) -> Any:
    """A ctypes object in shared memory."""
    obj = allocate(ctx, ctype(typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(
    typecode_or_type: Any, size_or_initializer: Any, *, ctx: BaseContext | None = None
) -> Any:
    """A ctypes array in shared memory."""
    type_ = ctype(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return allocate(ctx, type_ * size_or_initializer)
    result = allocate(ctx, type_ * len(size_or_initializer))
    result.__init__(*size_or_initializer)
    return result


def Value(
    typecode_or_type: Any, *args: Any, lock: Any = True, ctx: BaseContext | None = None
) -> Any:
    """A ctypes object in shared memory, with a lock unless ``lock=False``."""
    return with_lock(RawValue(typecode_or_type, *args, ctx=ctx), lock, ctx)


def Array(
    typecode_or_type: Any,
    size_or_initializer: Any,
    *,
    lock: Any = True,
    ctx: BaseContext | None = None,
) -> Any:
    """A ctypes array in shared memory, with a lock unless ``lock=False``."""
    return with_lock(RawArray(typecode_or_type, size_or_initializer, ctx=ctx), lock, ctx)


def with_lock(obj: Any, lock: Any, ctx: BaseContext | None) -> Any:
    """Wrap a raw object as stock's Value and Array do; ``lock=False`` leaves it as it is.

    Simple values, arrays and strings get the mechanism's wrapper, structures stock's.
    """
    if lock is False:
        return obj
    if lock is True or lock is None:
        lock = (ctx or multiprocessing.get_context()).RLock()
    elif not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    wrappers = getattr(mechanism_of(ctx), "wrappers", STOCK)
    if isinstance(obj, ctypes._SimpleCData):
        return wrappers.value(obj, lock)
    if isinstance(obj, ctypes.Array):
        string = obj._type_ is ctypes.c_char
        return (wrappers.string if string else wrappers.array)(obj, lock)
    return sharedctypes.synchronized(obj, lock, ctx=ctx)
