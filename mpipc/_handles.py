"""How a descriptor travels to another process: the only place that pickles one."""

from __future__ import annotations

from multiprocessing import context, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

__all__ = ["dup_fd"]


class DetachableFd(Protocol):
    """What arrives: call ``detach`` once for a descriptor of one's own."""

    def detach(self) -> int: ...


def dup_fd(fd: int) -> DetachableFd:
    """Wrap a descriptor so that it can be pickled.

    While a process is being spawned the descriptor is inherited by it, once however often it is
    asked for here (``fork_exec`` refuses a number that is listed twice); at other times it is
    handed over by multiprocessing's resource sharer.
    """
    popen: Any = context.get_spawning_popen()
    if popen is None:
        return reduction.DupFd(fd)
    known: dict[int, DetachableFd] = popen.__dict__.setdefault("_mpipc_fds", {})
    if fd not in known:
        known[fd] = reduction.DupFd(fd)
    return known[fd]
