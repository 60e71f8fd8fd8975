"""Stock's own classes and functions, also while :mod:`mpipc._install` has put ours in their places.

Whatever derives from stock's classes takes them from here. Their instances are pickled by reference
to this module as long as their own modules offer ours. A module of stock's is imported when one of
its names is first asked for, since most processes need few of them.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Pipe
    from multiprocessing.pool import Pool, ThreadPool
    from multiprocessing.queues import JoinableQueue, Queue, SimpleQueue
    from multiprocessing.sharedctypes import Array, RawArray, RawValue, Value
    from multiprocessing.synchronize import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "ThreadPool",
    "Value",
]

PLACES = {
    "connection": ("Pipe",),
    "pool": ("Pool", "ThreadPool"),
    "queues": ("JoinableQueue", "Queue", "SimpleQueue"),
    "sharedctypes": ("Array", "RawArray", "RawValue", "Value"),
    "synchronize": (
        "Barrier",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Lock",
        "RLock",
        "Semaphore",
    ),
}


def __getattr__(name: str) -> object:
    for place, names in PLACES.items():
        if name in names:
            module = import_module(f"multiprocessing.{place}")
            # All at once, before any of them can be replaced.
            globals().update((name, getattr(module, name)) for name in names)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
