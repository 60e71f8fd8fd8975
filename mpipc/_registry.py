"""Which mechanisms there are, and how their names become contexts.

Contexts are known to multiprocessing through ``multiprocessing.context._concrete_contexts``. That
is private; loky does the same. This module is the only one that touches it.
"""

from __future__ import annotations

import multiprocessing.context as stock
import warnings
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
    "find_mechanism",
    "get_context",
    "is_context_name",
    "mechanisms",
    "register",
]

PREFIX = "mpipc-"
START_METHODS = ("fork", "spawn", "forkserver")
# The platform's, whatever the program sets: fork, from Python 3.14 on forkserver.
DEFAULT_START_METHOD: str = stock._default_context._default_context._name  # type: ignore[attr-defined]


ASSEMBLED = "mpipc.objects.assembled"
ENTRY_POINTS = "mpipc.mechanisms"


class MechanismSpec:
    """One kernel mechanism: a row of the table of contexts.

    Parameters
    ----------
    name : str
        As it stands in a context's name behind ``mpipc-``.
    module : str
        Module that offers what :class:`mpipc.contracts.Mechanism` says.
    messages, locks, memory : str
        What messages travel by, what locks and semaphores are, what memory is: for listings.
    unrelated : bool
        Whether the kernel lets processes use it that have no ancestor in common.
    pollable : str
        What ``fileno()`` of a connection is.
    persistent : str
        What the kernel keeps when nobody uses it any more; "" for nothing.
    when_killed : str
        What becomes of its objects when a process is killed.
    objects : str
        Module with the objects of a context, ``Queue``, ``Pipe``, ``Lock`` and so on. By default
        they are assembled from what `module` offers.
    options : tuple of (str, callable)
        Keywords that :func:`get_context` takes for it, and what checks their values.
    extras : tuple of str
        What it has beyond stock: keywords of its queues and pipes, each on or off, as
        ``views=True``, and methods of its context, as ``empty()``.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        messages: str,
        locks: str,
        memory: str,
        pollable: str,
        unrelated: bool = False,
        persistent: str = "",
        when_killed: str,
        objects: str = ASSEMBLED,
        options: tuple[tuple[str, Callable[[Any], Any]], ...] = (),
        extras: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.module = module
        self.messages = messages
        self.locks = locks
        self.memory = memory
        self.pollable = pollable
        self.unrelated = unrelated
        self.persistent = persistent
        self.when_killed = when_killed
        self.objects = objects
        self.options = options
        self.extras = extras


def checked_max_bytes(value: Any) -> int:
    """The option ``max_bytes``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"max_bytes must be a number of bytes, 0 for no cap; got {value!r}")
    return value


def checked_on_owner_death(value: Any) -> str:
    """The option ``on_owner_death``."""
    if value not in ("warn", "raise", "hang"):
        raise ValueError(f"on_owner_death must be 'warn', 'raise' or 'hang', got {value!r}")
    return str(value)


LOST = "a unit of a semaphore that it held is lost"
FREED = f"queues go on and the kernel frees what nobody uses; {LOST}"
REAPED = f"queues go on, and the last user or the next program removes what is left; {LOST}"
CUT = f"as long as it was not in the middle of a message, {FREED}"
TOKENS = "tokens in a pipe (borrowed)"
MEMFDS = "memfds (borrowed)"

BUILT_IN = (
    MechanismSpec(
        "shm",
        "mpipc.mechanisms.shm",
        messages="message queues in memfds",
        locks="futex words",
        memory="memfds",
        pollable="a doorbell, a socket",
        when_killed="survivors take over its locks and repair what it was changing",
        objects="mpipc.mechanisms.shm",
        options=(("max_bytes", checked_max_bytes), ("on_owner_death", checked_on_owner_death)),
        extras=("empty()", "redeliver=True", "views=True"),
    ),
    MechanismSpec(
        "pipe",
        "mpipc.mechanisms.pipe",
        messages="anonymous pipes, two for duplex",
        locks="tokens in a pipe",
        memory=MEMFDS,
        pollable="the pipe",
        when_killed=CUT,
    ),
    MechanismSpec(
        "fifo",
        "mpipc.mechanisms.fifo",
        messages="FIFOs, two for duplex",
        locks="tokens in a FIFO",
        memory="mapped files",
        pollable="the FIFO",
        when_killed=CUT,
    ),
    MechanismSpec(
        "unix",
        "mpipc.mechanisms.unix",
        messages="stream socket pairs",
        locks="tokens in a socket",
        memory=MEMFDS,
        pollable="the socket",
        when_killed=CUT,
    ),
    MechanismSpec(
        "seqpacket",
        "mpipc.mechanisms.seqpacket",
        messages="Unix sockets, SOCK_SEQPACKET",
        locks=TOKENS,
        memory=MEMFDS,
        pollable="the socket",
        when_killed=FREED,
    ),
    MechanismSpec(
        "dgram",
        "mpipc.mechanisms.dgram",
        messages="Unix sockets, SOCK_DGRAM",
        locks=TOKENS,
        memory=MEMFDS,
        pollable="an epoll of the socket and of the peer's life",
        when_killed=FREED,
    ),
    MechanismSpec(
        "tcp",
        "mpipc.mechanisms.tcp",
        messages="TCP on 127.0.0.1",
        locks=TOKENS,
        memory=MEMFDS,
        pollable="the socket",
        when_killed=CUT,
    ),
    MechanismSpec(
        "udp",
        "mpipc.mechanisms.udp",
        messages="UDP on 127.0.0.1, what is unacknowledged in a memfd",
        locks=TOKENS,
        memory=MEMFDS,
        pollable="an epoll of an eventfd and of the peer's life",
        when_killed=FREED,
    ),
    MechanismSpec(
        "posix",
        "mpipc.mechanisms.posix",
        messages="POSIX message queues",
        locks="POSIX named semaphores",
        memory="POSIX shared memory",
        unrelated=True,
        pollable="an epoll over the queue and a socket",
        persistent="queues and semaphores; memory loses its name at once",
        when_killed=REAPED,
    ),
    MechanismSpec(
        "sysv",
        "mpipc.mechanisms.sysv",
        messages="System V message queues",
        locks="System V semaphores",
        memory="System V shared memory",
        unrelated=True,
        pollable="an epoll over a doorbell (eventfd) and a socket",
        persistent="queues, semaphores and memory",
        when_killed=REAPED,
    ),
    MechanismSpec(
        "file",
        "mpipc.mechanisms.file",
        messages="files in a spool directory, told of by inotify",
        locks="lock files with their holder in them; counters under OFD locks",
        memory="a mapped file",
        pollable="an epoll of an eventfd and of the peer's life",
        unrelated=True,
        persistent="the files",
        when_killed="survivors take over its locks and remove its half-written files; a "
        "semaphore's unit held is lost",
    ),
    MechanismSpec(
        "signal",
        "mpipc.mechanisms.signal",
        messages="message queues in memfds; a real-time signal wakes who waits in sigtimedwait",
        locks="words in memfds, and the same signal",
        memory="memfds",
        pollable="a doorbell, a socket",
        when_killed="survivors take over its locks and repair what it was changing; "
        "who was to be woken by it wakes after 0.1 s",
    ),
)
MECHANISMS: dict[str, MechanismSpec] = {spec.name: spec for spec in BUILT_IN}


def mechanisms() -> dict[str, MechanismSpec]:
    """All mechanisms by name, also those that installed packages add.

    A package adds one by an entry point of the group ``mpipc.mechanisms`` that names a
    :class:`MechanismSpec`. One that cannot be loaded is left out with a RuntimeWarning.
    """
    _load_entry_points()
    return MECHANISMS


def find_mechanism(name: str) -> MechanismSpec | None:
    """The mechanism of a name, None if there is none."""
    # Reading what is installed takes milliseconds, which the built-in ones are spared.
    return MECHANISMS.get(name) or mechanisms().get(name)


@cache
def _load_entry_points() -> None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        try:
            spec = entry.load()
            if not isinstance(spec, MechanismSpec):
                raise TypeError(f"it is a {type(spec).__name__}, not a MechanismSpec")
        except Exception as error:
            warnings.warn(
                f"mechanism {entry.name!r} of {entry.value} cannot be used: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            MECHANISMS.setdefault(spec.name, spec)


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
        parts = _parts(name)
        if parts is None:
            raise ValueError(
                f"cannot find context for {name!r}; mpipc offers {', '.join(context_names())}"
            )
        mechanism, method = parts
        return get_context(mechanism, start_method=method)


def _parts(name: object) -> tuple[str, str | None] | None:
    """The mechanism and the start method in a context's name; None if it is not one of ours."""
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return None
    mechanism = name.removeprefix(PREFIX)
    head, _, method = mechanism.rpartition("-")
    if method not in START_METHODS:
        head, method = mechanism, ""
    return (head, method or None) if find_mechanism(head) else None


def register() -> None:
    """Make multiprocessing know our contexts. Done on import, once."""
    if not isinstance(contexts(), Contexts):
        stock._concrete_contexts = Contexts(contexts())  # type: ignore[attr-defined]


def contexts() -> Contexts:
    """The table of contexts that multiprocessing uses."""
    return stock._concrete_contexts  # type: ignore[attr-defined,no-any-return]


def is_context_name(name: object) -> bool:
    """Whether :func:`multiprocessing.get_context` takes a name because of us."""
    return _parts(name) is not None


def context_names() -> list[str]:
    """All names that :func:`multiprocessing.get_context` takes besides stock's."""
    return [
        PREFIX + name + suffix
        for name in mechanisms()
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
        array may use more shared memory than this; what would raises MemoryError. And
        ``on_owner_death`` (str), what its locks do when their holder is killed, if they were not
        made with an ``on_owner_death`` of their own: ``"warn"`` passes the lock to who asks next,
        with an OwnerDiedWarning; ``"raise"`` passes it on and raises OwnerDied there; ``"hang"``
        leaves it held for ever, as stock does.

    Raises
    ------
    ValueError
        Unknown mechanism or start method, or a bad value of an option.
    TypeError
        Unknown option.
    """
    spec = find_mechanism(mechanism)
    if spec is None:
        raise ValueError(f"unknown mechanism {mechanism!r}; there are {', '.join(mechanisms())}")
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
