"""The global switch: an unchanged program's multiprocessing is ours.

``multiprocessing.Queue`` and the other functions of the package look their classes up in
``multiprocessing.queues``, ``.synchronize`` and so on at each call, with the default context. So
two changes reach also who imported those functions long before: the modules offer our classes, and
the names of start methods lead to our contexts. Children are told by the data that stock sends to
prepare them.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from inspect import getattr_static
from multiprocessing import connection, pool, queues, sharedctypes, spawn, synchronize
from multiprocessing import context as stock_context
from types import FunctionType, TracebackType
from typing import Any

from . import _stock
from ._context import MechanismContext
from ._registry import START_METHODS, context_names, contexts, get_context

__all__ = ["Installation", "install", "restore", "uninstall"]

VARIABLE = "MPIPC_CONTEXT"
DEFAULT = "mpipc-shm"

# Which module of multiprocessing offers what.
PLACES = {
    connection: ("Pipe",),
    pool: ("Pool",),
    queues: ("JoinableQueue", "Queue", "SimpleQueue"),
    sharedctypes: ("Array", "RawArray", "RawValue", "Value"),
    synchronize: (
        "Barrier",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Lock",
        "RLock",
        "Semaphore",
    ),
}
CLASSES: list[type[Any]] = [
    value
    for names in PLACES.values()
    for name in names
    if isinstance(value := getattr(_stock, name), type)
]

_guard = threading.RLock()
_current: Installation | None = None


class Installation:
    """What :func:`install` did; as a context manager it ends with its block.

    Attributes
    ----------
    context : MechanismContext
        Where objects come from. Its start method is that of programs which set none.
    """

    def __init__(self, context: MechanismContext) -> None:
        self.context = context
        self._early = _early_modules()
        self._replaced: list[tuple[Any, str, Any]] = []
        self._chosen: Any = None
        self._previous: Installation | None = None

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _guard:
            if _current is self:
                _switch_to(self._previous)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.context!r}>"

    def _apply(self) -> None:
        for owner, name, value in self._replacements():
            self._replaced.append((owner, name, getattr_static(owner, name)))
            setattr(owner, name, value)
        default: Any = stock_context._default_context
        self._chosen = chosen = default._actual_context
        if chosen is not None and not isinstance(chosen, MechanismContext):
            default._actual_context = self.context.variant(chosen._name)

    def _undo(self) -> None:
        while self._replaced:
            setattr(*self._replaced.pop())
        default: Any = stock_context._default_context
        chosen = default._actual_context
        # A context of ours that the program itself had chosen before stays.
        if chosen is not self._chosen and chosen in map(self.context.variant, START_METHODS):
            default._actual_context = contexts()[chosen.method]

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        """All that is changed but for the context in use: owner, attribute, our value."""
        yield contexts(), "installed", self.context
        yield stock_context._default_context, "_default_context", self.context
        yield multiprocessing, "get_all_start_methods", _get_all_start_methods
        yield spawn, "get_preparation_data", self._preparation_data
        yield spawn, "prepare", _prepare
        for module, names in PLACES.items():
            for name in names:
                yield module, name, getattr(self.context._objects, name)
        for cls in CLASSES:
            yield cls, "__module__", _stock.__name__
        yield from _pinned(_stock.JoinableQueue, _stock.Queue)
        yield from _pinned(_stock.ThreadPool, _stock.Pool)

    def _preparation_data(self, name: str) -> dict[str, Any]:
        """Stock's data for a new child, with what makes it install us too.

        Two kinds of process read it. A child unpickles all of it before it acts on any. A fork
        server finds the path among the arguments of its main function, as text in its command.
        """
        data: dict[str, Any] = _stock.get_preparation_data(name)
        arguments = (
            self.context._spec.name,
            self.context.method,
            self.context._options,
            self._early,
        )
        code = (
            f"import sys; sys.path[:] = {data['sys_path']!r}; "
            f"from mpipc._install import restore; restore{arguments!r}"
        )
        data["sys_path"] = _Path(data["sys_path"], code)
        # First, because the name of the start method, further on, is unpickled by mpipc.
        return {"mpipc": _Code(code), **data}


def _prepare(data: dict[str, Any]) -> None:
    """Stock's, for children of a fork server that was started while we were installed."""
    if "mpipc" not in data:
        uninstall()
    _stock.prepare(data)


class _Code:
    """Code that runs where this is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code, {})


class _Path(list[str]):
    """``sys.path`` whose text, evaluated, runs code first."""

    def __init__(self, path: list[str], code: str) -> None:
        super().__init__(path)
        self.code = code

    def __repr__(self) -> str:
        return f"[exec({self.code!r}, {{}}), {super().__repr__()}][1]"

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class _StartMethods(list[str]):
    """Stock's start methods, which also answers to our names but does not list them."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in context_names()


def _get_all_start_methods() -> list[str]:
    """The start methods of the platform; names of mpipc's contexts are ``in`` it too."""
    return _StartMethods(stock_context._default_context.get_all_start_methods())


def _early_modules() -> list[str]:
    """The modules that derived classes from stock's before ours took their places.

    A child must find the same bases, so it imports these modules before it installs us.
    """
    found = set()
    bases = list(CLASSES)
    while bases:
        for derived in bases.pop().__subclasses__():
            package = derived.__module__.partition(".")[0]
            if package != "mpipc":
                bases.append(derived)
            if package not in ("mpipc", "multiprocessing", "__main__", "__mp_main__"):
                found.add(derived.__module__)
    return sorted(found)


def _pinned(cls: type[Any], base: type[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Methods of a class of stock's that go on calling its base, which they know by global name."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and base.__name__ in method.__code__.co_names:
            names = {**method.__globals__, base.__name__: base}
            copy = FunctionType(
                method.__code__, names, name, method.__defaults__, method.__closure__
            )
            copy.__kwdefaults__ = method.__kwdefaults__
            yield cls, name, copy


def _switch_to(installation: Installation | None) -> None:
    global _current
    if _current is not None:
        _current._undo()
    _current = installation
    if installation is not None:
        installation._apply()


def install(context: str | MechanismContext | None = None) -> Installation:
    """Make multiprocessing itself hand out our objects, here and in all child processes.

    ``multiprocessing.Queue``, ``Pool``, ``Process`` and the others, the classes in
    ``multiprocessing.queues``, ``.synchronize``, ``.sharedctypes`` and ``.pool``, and the contexts
    that ``multiprocessing.get_context("fork")`` and the like return are mpipc's from now on.
    Objects that exist already stay what they are and go on working. Libraries that derive classes
    of their own from stock's, such as :mod:`concurrent.futures`, should be imported afterwards.

    Parameters
    ----------
    context : str or context, optional
        Where objects come from: a name as in :func:`mpipc.context_names`, or what
        :func:`mpipc.get_context` returned. If not given, the environment variable
        ``MPIPC_CONTEXT`` names it, else it is ``mpipc-shm``. Its start method is the default of
        programs that set none; it is not set by this, so they still can.

    Returns
    -------
    Installation
        A context manager: leaving its block brings back what was before. Without one, see
        :func:`uninstall`.

    Raises
    ------
    ValueError
        There is no context of that name.
    TypeError
        `context` is neither a name nor a context of mpipc.
    """
    if context is None:
        context = os.environ.get(VARIABLE) or DEFAULT
    if isinstance(context, str):
        if context not in context_names():
            raise ValueError(
                f"cannot install {context!r}; mpipc offers {', '.join(context_names())}"
            )
        context = contexts()[context]
    if not isinstance(context, MechanismContext):
        raise TypeError(f"context must be a name or a context of mpipc, not {context!r}")
    with _guard:
        previous = _current
        # With stock's classes in place, so that what derives from ours is not taken for early.
        _switch_to(None)
        installation = Installation(context)
        installation._previous = previous
        _switch_to(installation)
    return installation


def uninstall() -> None:
    """Take :func:`install` back: multiprocessing is stock's again. Without one, nothing happens.

    Objects that exist already stay what they are and go on working.
    """
    with _guard:
        _switch_to(None)


def restore(mechanism: str, method: str, options: dict[str, Any], early: list[str]) -> None:
    """Install in a child what its parent has installed, after the imports that the parent did."""
    uninstall()
    for name in early:
        # If the child needs a module that is not to be had here, its own import says so.
        with suppress(ImportError):
            import_module(name)
    install(get_context(mechanism, start_method=method, **options))
