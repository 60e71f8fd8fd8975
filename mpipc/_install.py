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
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from multiprocessing import context as stock_context
from multiprocessing import spawn
from types import FunctionType

from . import _stock
from ._context import MechanismContext
from ._registry import START_METHODS, context_names, contexts, get_context, is_context_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType, TracebackType
    from typing import Any

__all__ = ["Installation", "install", "restore", "uninstall"]

VARIABLE = "MPIPC_CONTEXT"
DEFAULT = "mpipc-shm"

# Classes in the modules of _stock.PLACES that stay, but call by its name a base that is replaced.
PINNED = {"queues": ("JoinableQueue", "Queue"), "pool": ("ThreadPool", "Pool")}

_guard = threading.RLock()
_current: Installation | None = None


class Installation:
    """What :func:`install` did; as a context manager it ends with its block.

    Attributes
    ----------
    context : MechanismContext
        Where objects come from. Its start method is that of programs which set none.
    """

    def __init__(self, context: MechanismContext, previous: Installation | None) -> None:
        self.context = context
        self._previous = previous
        self._watcher = _ImportWatcher(self._replace_loaded_names)
        self._places: set[str] = set()
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._chosen: Any = None

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
        default: Any = stock_context._default_context
        self._replace(contexts(), "installed", self.context)
        self._replace(default, "_default_context", self.context)
        self._replace(multiprocessing, "get_all_start_methods", _get_all_start_methods)
        self._preparation_data_of = spawn.get_preparation_data
        self._replace(spawn, "get_preparation_data", self._preparation_data)
        self._prepare_from = spawn.prepare
        self._replace(spawn, "prepare", self._prepare)
        sys.meta_path.insert(0, self._watcher)
        self._replace_loaded_names()
        self._chosen = chosen = default._actual_context
        if chosen is not None and not isinstance(chosen, MechanismContext):
            default._actual_context = self.context.variant(chosen._name)

    def _undo(self) -> None:
        sys.meta_path.remove(self._watcher)
        while self._replaced:
            owner, name, value, found = self._replaced.pop()
            # Somebody else may have replaced it meanwhile.
            if vars(owner).get(name, value) is value:
                setattr(owner, name, found)
        self._places.clear()
        default: Any = stock_context._default_context
        chosen = default._actual_context
        # A context of ours that the program itself had chosen before stays.
        if chosen is not self._chosen and chosen in map(self.context.variant, START_METHODS):
            default._actual_context = contexts()[chosen.method]

    def _replace_loaded_names(self) -> None:
        # No lock here: other threads may be importing. What is left for later waits for an import.
        for place in _loaded_places():
            if place not in self._places:
                self._places.add(place)
                self._replace_names_in(place)

    def _replace_names_in(self, place: str) -> None:
        """Put our classes and functions into one of multiprocessing's modules."""
        objects = self.context._objects
        for name in _stock.PLACES[place]:
            original = getattr(_stock, name)
            if name in objects.__all__:
                self._replace(sys.modules[f"multiprocessing.{place}"], name, getattr(objects, name))
                if isinstance(original, type):
                    if line := vars(original).get("__firstlineno__"):
                        # Setting __module__ drops it; so noted, it comes back in the end.
                        self._replace(original, "__firstlineno__", line)
                    self._replace(original, "__module__", _stock.__name__)
        if place in PINNED:
            cls, base = (getattr(_stock, name) for name in PINNED[place])
            for name, method in _pinned_methods(cls, base):
                self._replace(cls, name, method)

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        found = vars(owner)[name] if name in vars(owner) else getattr(owner, name)
        self._replaced.append((owner, name, value, found))
        setattr(owner, name, value)

    def _preparation_data(self, name: str) -> dict[str, Any]:
        """Stock's data for a new child, with what makes it install us too.

        Two kinds of process read it. A child unpickles all of it before it acts on any. A fork
        server finds the path among the arguments of its main function, as text in its command.
        """
        data: dict[str, Any] = self._preparation_data_of(name)
        arguments = (self.context._spec.name, self.context.method, self.context._options)
        code = (
            f"import sys; sys.path[:] = {data['sys_path']!r}; "
            f"from mpipc._install import restore; restore{arguments!r}"
        )
        data["sys_path"] = _Path(data["sys_path"], code)
        # First, because the name of the start method, further on, is unpickled by mpipc.
        return {"mpipc": _Code(code), **data}

    def _prepare(self, data: dict[str, Any]) -> None:
        """Stock's, for children of a fork server that was started while we were installed."""
        if "mpipc" not in data:
            uninstall()
        self._prepare_from(data)


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
        return super().__contains__(name) or is_context_name(name)


def _get_all_start_methods() -> list[str]:
    """The start methods of the platform; names of mpipc's contexts are ``in`` it too."""
    return _StartMethods(stock_context._default_context.get_all_start_methods())


def _loaded_places() -> list[str]:
    return [place for place in _stock.PLACES if f"multiprocessing.{place}" in sys.modules]


class _ImportWatcher:
    """On ``sys.meta_path``: calls back when modules of multiprocessing have been imported.

    They import each other, and ours import them. As long as one is not complete it waits.
    """

    def __init__(self, imported: Callable[[], None]) -> None:
        self._imported = imported
        self._incomplete = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, last = name.rpartition(".")
        if (package != "multiprocessing" or last not in _stock.PLACES) and not name.startswith(
            "mpipc."
        ):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                self._incomplete += 1
                try:
                    execute(module)
                finally:
                    self._incomplete -= 1
                if not self._incomplete:
                    self._imported()

            loader.exec_module = exec_module
        return spec


def _pinned_methods(cls: type[Any], base: type[Any]) -> Iterator[tuple[str, FunctionType]]:
    """Copies of methods that know their base by its global name, and are to go on calling it."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and base.__name__ in method.__code__.co_names:
            names = {**method.__globals__, base.__name__: base}
            copy = FunctionType(
                method.__code__, names, name, method.__defaults__, method.__closure__
            )
            copy.__kwdefaults__ = method.__kwdefaults__
            yield name, copy


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
    Objects that exist already stay what they are and go on working. A class that a program derives
    from one in these modules is derived from stock's, with locks and pipes of ours below it.

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
        if not is_context_name(context):
            raise ValueError(
                f"cannot install {context!r}; mpipc offers {', '.join(context_names())}"
            )
        context = contexts()[context]
    if not isinstance(context, MechanismContext):
        raise TypeError(f"context must be a name or a context of mpipc, not {context!r}")
    with _guard:
        installation = Installation(context, _current)
        _switch_to(installation)
    return installation


def uninstall() -> None:
    """Take :func:`install` back: multiprocessing is stock's again. Without one, nothing happens.

    Objects that exist already stay what they are and go on working.
    """
    with _guard:
        _switch_to(None)


def restore(mechanism: str, method: str, options: dict[str, Any]) -> None:
    """Install in a child what its parent has installed."""
    install(get_context(mechanism, start_method=method, **options))
