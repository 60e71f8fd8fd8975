"""Values and arrays: stock's ctypes wrappers over memory that a mechanism provides."""

from __future__ import annotations

import ctypes
import multiprocessing
from multiprocessing import sharedctypes
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from ..contracts import MemoryProvider

__all__ = ["Wrappers", "raw_array", "raw_value", "with_lock"]


class Wrappers(NamedTuple):
    """A mechanism's classes in place of stock's Synchronized, -Array and -String."""

    value: type[Any]
    array: type[Any]
    string: type[Any]


def ctype(typecode_or_type: Any) -> Any:
    """The ctypes type that a type code stands for."""
    found = sharedctypes.typecode_to_type.get(typecode_or_type, typecode_or_type)  # type: ignore[attr-defined]
    if isinstance(found, str):
        codes = " ".join(sharedctypes.typecode_to_type)  # type: ignore[attr-defined]
        raise TypeError(f"bad typecode {found!r}; there are {codes}, and ctypes types")
    return found


def allocate(provide: MemoryProvider, type_: Any) -> Any:
    """A zeroed object of `type_` in a block of its own."""
    return sharedctypes.rebuild_ctype(type_, provide(ctypes.sizeof(type_)), None)  # type: ignore[attr-defined]


def raw_value(provide: MemoryProvider, typecode_or_type: Any, *args: Any) -> Any:
    """Stock's RawValue in memory from `provide`."""
    obj = allocate(provide, ctype(typecode_or_type))
    obj.__init__(*args)
    return obj


def raw_array(provide: MemoryProvider, typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Stock's RawArray in memory from `provide`."""
    type_ = ctype(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return allocate(provide, type_ * size_or_initializer)
    result = allocate(provide, type_ * len(size_or_initializer))
    result.__init__(*size_or_initializer)
    return result


def with_lock(obj: Any, lock: Any, ctx: BaseContext | None, wrappers: Wrappers) -> Any:
    """Wrap a raw object as stock's Value and Array do; ``lock=False`` leaves it as it is.

    Simple values, arrays and strings get the mechanism's wrapper, structures stock's.
    """
    if lock is False:
        return obj
    if lock is True or lock is None:
        lock = (ctx or multiprocessing.get_context()).RLock()
    elif not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    if isinstance(obj, ctypes._SimpleCData):
        return wrappers.value(obj, lock)
    if isinstance(obj, ctypes.Array):
        string = obj._type_ is ctypes.c_char
        return (wrappers.string if string else wrappers.array)(obj, lock)
    return sharedctypes.synchronized(obj, lock, ctx=ctx)
