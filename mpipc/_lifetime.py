"""What happens to shared state when a process ends the normal way.

A death that is not announced here is found by the processes that live on, from the owner tags in
shared memory.
"""

from __future__ import annotations

import weakref
from multiprocessing import util

from ._core import release_orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import QueueCore

__all__ = ["leave_orderly", "watch_exit"]

# After the finalizers of user objects, which may still release locks.
EXIT_PRIORITY = -100


class _Anchor:
    """Something for multiprocessing's weak registries to hold on to."""


_anchor = _Anchor()


_joinable: weakref.WeakSet[QueueCore] = weakref.WeakSet()


def leave_orderly(queue: QueueCore) -> None:
    """Leave the tasks taken from a queue to others when this process ends normally."""
    _joinable.add(queue)


def _leave() -> None:
    release_orphans()
    for queue in list(_joinable):
        queue._leave_tasks()


def _announce_exit(_: object = None) -> None:
    util.Finalize(None, _leave, exitpriority=EXIT_PRIORITY)


def watch_exit() -> None:
    """Leave locks and tasks as stock would, at the end of this process and of its forked children.

    A forked child starts with an empty registry of finalizers, hence the second line.
    """
    _announce_exit()
    util.register_after_fork(_anchor, _announce_exit)
