"""Which mechanisms there are, and how their names become contexts.

Contexts are known to multiprocessing through ``multiprocessing.context._concrete_contexts``. That
is private; loky does the same. This module is the only one that touches it.
"""

from __future__ import annotations

import multiprocessing.context as stock
from collections.abc import Callable
from functools import cache

# What only a type checker needs is not imported anywhere below mpipc: each spawned process would
# pay for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._context import MechanismContext

__all__ = [
    "MECHANISMS",
    "MechanismSpec",
    "StartMethod",
    "context_names",
    "contexts",
    "get_context",
    "register",
]

PREFIX = "mpipc-"
START_METHODS = ("fork", "spawn", "forkserver")
# The platform's, whatever the program sets: fork, from Python 3.14 on forkserver.
DEFAULT_START_METHOD: str = stock._default_context._default_context._name  # type: ignore[attr-defined]


class MechanismSpec:
    """One kernel mechanism.

    Parameters
    ----------
    name : str
        As it stands in a context's name behind ``mpipc-``.
    module : str
        Module that offers ``Queue``, ``Pipe``, ``Lock`` and the other objects.
    summary : str
        What messages travel by, for listings.
    options : tuple of (str, callable)
        Keywords that :func:`get_context` takes for it, and what checks their values.
    """

    def __init__(
        self,
        name: str,
        module: str,
        summary: str,
        options: tuple[tuple[str, Callable[[Any], Any]], ...] = (),
    ) -> None:
        self.name = name
        self.module = module
        self.summary = summary
        self.options = options


def checked_max_bytes(value: Any) -> int:
    """The option ``max_bytes``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"max_bytes must be a number of bytes, 0 for no cap; got {value!r}")
    return value


MECHANISMS: dict[str, MechanismSpec] = {
    spec.name: spec
    for spec in (
        MechanismSpec(
            "shm",
            "mpipc.mechanisms.shm",
            "message queues and futex words in memfds",
            (("max_bytes", checked_max_bytes),),
        ),
    )
}


class StartMethod(str):
    """The name of a start method that remembers whose it is.

    It equals ``"fork"``, ``"spawn"`` or ``"forkserver"``, since libraries compare it. Stock hands
    it to child processes as the name of their default context; unpickled there, it brings mpipc
    along, and looked up it leads to the context it came from.
    """

    context: MechanismContext

    def __new__(cls, method: str, context: MechanismContext) -> StartMethod:
        self = super().__new__(cls, method)
        self.context = context
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _start_method_of, (self.context,)


def _start_method_of(context: MechanismContext) -> StartMethod:
    name: StartMethod = context._name
    return name


class Contexts(dict[str, "Any"]):
    """Stock's table of contexts, which also answers to our names but does not list them.

    CPython's tests, and from 3.14 on ``get_all_start_methods()``, take its keys for the platform's
    start methods.

    Attributes
    ----------
    installed : MechanismContext or None
        While set, the names of start methods lead to its variants, see :func:`mpipc.install`.
    """

    installed: MechanismContext | None = None

    def __getitem__(self, name: str) -> Any:
        if type(name) is StartMethod:
            return name.context
        if self.installed is not None and name in START_METHODS:
            return self.installed.variant(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        if name in context_names():
            mechanism, _, method = name.removeprefix(PREFIX).partition("-")
            return get_context(mechanism, start_method=method or None)
        raise ValueError(
            f"cannot find context for {name!r}; mpipc offers {', '.join(context_names())}"
        )


def register() -> None:
    """Make multiprocessing know our contexts. Done on import, once."""
    if not isinstance(contexts(), Contexts):
        stock._concrete_contexts = Contexts(contexts())  # type: ignore[attr-defined]


def contexts() -> Contexts:
    """The table of contexts that multiprocessing uses."""
    return stock._concrete_contexts  # type: ignore[attr-defined,no-any-return]


def context_names() -> list[str]:
    """All names that :func:`multiprocessing.get_context` takes besides stock's."""
    return [
        PREFIX + name + suffix
        for name in MECHANISMS
        for suffix in ("", *(f"-{method}" for method in START_METHODS))
    ]


def get_context(
    mechanism: str = "shm", *, start_method: str | None = None, **options: Any
) -> MechanismContext:
    """Return the context of a mechanism; the same one for the same arguments.

    Parameters
    ----------
    mechanism : str
        Its name, such as ``"shm"``.
    start_method : str, optional
        ``"fork"``, ``"spawn"`` or ``"forkserver"``; the platform's default if not given.
    **options
        Of the mechanism. ``shm`` takes ``max_bytes`` (int): no queue, direction of a pipe, value or
        array may use more shared memory than this; what would raises MemoryError.

    Raises
    ------
    ValueError
        Unknown mechanism or start method, or a bad value of an option.
    TypeError
        Unknown option.
    """
    spec = MECHANISMS.get(mechanism)
    if spec is None:
        raise ValueError(f"unknown mechanism {mechanism!r}; there are {', '.join(MECHANISMS)}")
    method = DEFAULT_START_METHOD if start_method is None else str(start_method)
    if method not in START_METHODS:
        raise ValueError(
            f"unknown start method {start_method!r}; there are {', '.join(START_METHODS)}"
        )
    checks = dict(spec.options)
    unknown = options.keys() - checks
    if unknown:
        raise TypeError(
            f"mechanism {mechanism!r} has no option {', '.join(sorted(unknown))}; "
            f"it takes {', '.join(checks) or 'none'}"
        )
    checked = {name: checks[name](value) for name, value in options.items()}
    return _context(spec, method, tuple(sorted(checked.items())))


@cache
def _context(
    spec: MechanismSpec, method: str, options: tuple[tuple[str, Any], ...]
) -> MechanismContext:
    from ._context import CONTEXTS

    return CONTEXTS[method](spec, dict(options))
