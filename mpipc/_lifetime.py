"""What happens to shared state when a process ends the normal way.

A death that is not announced here is found by the processes that live on, from the owner tags in
shared memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from multiprocessing import util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import QueueCore

__all__ = ["AFTER_OBJECTS", "at_exit", "leave_orderly", "watch_exit"]

# The priority after the finalizers of user objects, which may still release locks.
AFTER_OBJECTS = -100

_joinable: weakref.WeakSet[QueueCore] = weakref.WeakSet()


def at_exit(call: Callable[[], object], priority: int) -> None:
    """Call a function of a module at the normal end of this process and of its forked children.

    A forked child starts with an empty registry of finalizers, hence the second line. It is the
    function that stock's weak registry holds on to.
    """
    _announce(call, priority)
    util.register_after_fork(call, lambda call: _announce(call, priority))


def _announce(call: Callable[[], object], priority: int) -> None:
    util.Finalize(None, call, exitpriority=priority)


def leave_orderly(queue: QueueCore) -> None:
    """Leave the tasks taken from a queue to others when this process ends normally."""
    _joinable.add(queue)


def _leave() -> None:
    from ._core import release_orphans

    release_orphans()
    for queue in list(_joinable):
        queue._leave_tasks()


def watch_exit() -> None:
    """Leave locks and tasks as stock would when this process, or a forked child of it, ends."""
    at_exit(_leave, AFTER_OBJECTS)
