"""Contexts: what a mechanism offers, joined with a way of starting processes."""

from __future__ import annotations

import multiprocessing.context as stock
from functools import cache
from importlib import import_module
from multiprocessing.process import parent_process
from types import ModuleType

from ._process import process_class
from ._registry import MECHANISMS, MechanismSpec, StartMethod, contexts, get_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CONTEXTS", "MechanismContext", "death_policy", "max_bytes"]


class MechanismContext(stock.BaseContext):
    """A multiprocessing context whose objects come from one mechanism.

    Obtained from :func:`mpipc.get_context` or ``multiprocessing.get_context("mpipc-...")``.
    """

    method: str
    Process: Any
    _name: Any
    _spec: MechanismSpec
    _options: dict[str, Any]

    def __init__(
        self, spec: MechanismSpec | None = None, options: dict[str, Any] | None = None
    ) -> None:
        if spec is None:
            # A class that a program derives from an installed context's, as it may from stock's.
            installed = contexts().installed
            if installed is None:
                raise TypeError("use mpipc.get_context() or multiprocessing.get_context()")
            spec, options = installed._spec, installed._options
        self._spec = spec
        self._options = options or {}
        self._name = StartMethod(self.method, self)
        # Looked up by every constructor, so not by a lazy property.
        self._max_bytes: int = self._options.get("max_bytes", 0)
        self._on_owner_death: str = self._options.get("on_owner_death", "warn")
        self._module: ModuleType | None = None
        self._parts: ModuleType | None = None
        if type(self).Process is CONTEXTS[self.method].Process:
            self.Process = process_class(self)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"<{type(self).__name__} mpipc-{self._spec.name}-{self.method}{options}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_context, (self._spec.name, self.method, self._options)

    @property
    def _objects(self) -> ModuleType:
        if self._module is None:
            self._module = import_module(self._spec.objects)
            if parent_process() is None:
                _clean_up()
        return self._module

    @property
    def _mechanism(self) -> ModuleType:
        if self._parts is None:
            self._parts = import_module(self._spec.module)
        return self._parts

    def variant(self, method: str) -> MechanismContext:
        """The same mechanism and options with another start method."""
        return get_context(self._spec.name, start_method=method, **self._options)

    def _require(self, extra: str) -> None:
        """Raise TypeError if the mechanism has not this beyond stock."""
        if extra not in self._spec.extras:
            able = [f"mpipc-{spec.name}" for spec in MECHANISMS.values() if extra in spec.extras]
            raise TypeError(
                f"mpipc-{self._spec.name} has no {extra}; use the context {' or '.join(able)}"
            )

    def _extras(self, **asked: bool) -> dict[str, bool]:
        """What is asked for beyond stock, as keywords; TypeError where the mechanism lacks it."""
        extras = {}
        for name, value in asked.items():
            if value:
                self._require(f"{name}=True")
                extras[name] = True
        return extras

    def Pipe(self, duplex: bool = True, *, views: bool = False) -> Any:
        """Two connections joined by a pipe; for `views` see :meth:`Queue`."""
        return self._objects.Pipe(duplex, ctx=self, **self._extras(views=views))

    # Options beyond stock's, such as on_owner_death, are those of the mechanism's classes.

    def Lock(self, **options: Any) -> Any:
        """A lock."""
        return self._objects.Lock(ctx=self, **options)

    def RLock(self, **options: Any) -> Any:
        """A lock that its holder may take again."""
        return self._objects.RLock(ctx=self, **options)

    def Condition(self, lock: Any = None, **options: Any) -> Any:
        """A condition variable."""
        return self._objects.Condition(lock, ctx=self, **options)

    def Semaphore(self, value: int = 1, **options: Any) -> Any:
        """A semaphore."""
        return self._objects.Semaphore(value, ctx=self, **options)

    def BoundedSemaphore(self, value: int = 1, **options: Any) -> Any:
        """A semaphore that cannot be released above its first value."""
        return self._objects.BoundedSemaphore(value, ctx=self, **options)

    def Event(self) -> Any:
        """An event."""
        return self._objects.Event(ctx=self)

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """A barrier."""
        return self._objects.Barrier(parties, action, timeout, ctx=self)

    def Queue(self, maxsize: int = 0, *, views: bool = False) -> Any:
        """A queue; `maxsize` items at most, unbounded if not positive.

        With `views`, beyond stock, NumPy arrays and memoryviews that are taken from it are not
        copied: they look into the shared memory where their message lies, which is free again when
        the last of them is gone.
        """
        return self._objects.Queue(maxsize, ctx=self, **self._extras(views=views))

    def JoinableQueue(
        self, maxsize: int = 0, *, views: bool = False, redeliver: bool = False
    ) -> Any:
        """A queue with ``task_done`` and ``join``; for `views` see :meth:`Queue`.

        With `redeliver`, beyond stock, what a process had taken and not done when it was killed is
        handed to another.
        """
        extras = self._extras(views=views, redeliver=redeliver)
        return self._objects.JoinableQueue(maxsize, ctx=self, **extras)

    def SimpleQueue(self, *, views: bool = False) -> Any:
        """A queue with only ``put``, ``get``, ``empty``, ``close``; `views` as for `Queue`."""
        return self._objects.SimpleQueue(ctx=self, **self._extras(views=views))

    def empty(self, shape: Any, dtype: Any = float, *, to: Any) -> Any:
        """A NumPy array in the memory of a queue or pipe of this context; beyond stock.

        Fill it and send it to `to`, whole: that sends a reference, the array is not copied. From
        then on sender and receiver look at the same memory if `to` was made with ``views=True``,
        else the receiver gets its copy. The memory is free again when both are done. Sent to
        somewhere else, or again while somebody still has it, it is copied as any array is.

        Parameters
        ----------
        shape : int or tuple of int
            As for ``numpy.empty``.
        dtype : numpy.dtype or what makes one
            Numbers in native byte order.
        to : Queue, JoinableQueue, SimpleQueue or Connection
            Of ``mpipc-shm``; a connection that can send.

        Raises
        ------
        TypeError
            The mechanism cannot; `to` or `dtype` is of another kind.
        ValueError
            A negative dimension, more than seven, or a queue with ``redeliver=True``.
        MemoryError
            There is no memory, or ``max_bytes`` does not allow it.
        """
        self._require("empty()")
        return self._objects.empty(to, shape, dtype)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool of worker processes."""
        return self._objects.Pool(processes, initializer, initargs, maxtasksperchild, context=self)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object in shared memory."""
        return self._objects.RawValue(typecode_or_type, *args, ctx=self)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array in shared memory."""
        return self._objects.RawArray(typecode_or_type, size_or_initializer, ctx=self)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object in shared memory, with a lock."""
        return self._objects.Value(typecode_or_type, *args, lock=lock, ctx=self)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array in shared memory, with a lock."""
        return self._objects.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self)


def mechanism_of(ctx: stock.BaseContext | None) -> ModuleType:
    """The mechanism of a context; where stock hands its own or none over, of the installed one."""
    if not isinstance(ctx, MechanismContext):
        ctx = contexts().installed
    assert ctx is not None
    return ctx._mechanism


def max_bytes(ctx: stock.BaseContext | None) -> int:
    """The option of a context; where stock hands its own or none over, of the installed one."""
    if not isinstance(ctx, MechanismContext):
        ctx = contexts().installed
    return 0 if ctx is None else ctx._max_bytes


@cache
def _clean_up() -> None:
    """Remove what programs left that were killed with all their processes."""
    from .adapters.leases import clean

    for _ in clean():
        pass


def death_policy(ctx: stock.BaseContext | None) -> str:
    """The option ``on_owner_death`` of a context, as :func:`max_bytes`."""
    if not isinstance(ctx, MechanismContext):
        ctx = contexts().installed
    return "warn" if ctx is None else ctx._on_owner_death


def _rebuild_context(mechanism: str, method: str, options: dict[str, Any]) -> MechanismContext:
    return get_context(mechanism, start_method=method, **options)


class ForkContext(MechanismContext, stock.ForkContext):
    method = "fork"


class SpawnContext(MechanismContext, stock.SpawnContext):
    method = "spawn"


class ForkServerContext(MechanismContext, stock.ForkServerContext):
    method = "forkserver"


# Named as stock names its own, which CPython's tests look at.
CONTEXTS: dict[str, type[MechanismContext]] = {
    cls.method: cls for cls in (ForkContext, SpawnContext, ForkServerContext)
}
