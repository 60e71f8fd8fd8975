"""Exceptions and warnings that stock has no name for."""

from __future__ import annotations

__all__ = ["OwnerDied", "OwnerDiedWarning", "SegmentCorrupt", "WorkerLost"]


class SegmentCorrupt(OSError):
    """What lies in shared memory cannot be right: some process wrote where it should not."""


class OwnerDied(RuntimeError):
    """A process died that held a lock, or something else that others wait for.

    Attributes
    ----------
    pid : int
        The process.
    """

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[type[OwnerDied], tuple[str, int]]:
        return type(self), (str(self), self.pid)


class WorkerLost(RuntimeError):
    """A worker of a Pool was killed, or ended, with a task in its hands.

    Attributes
    ----------
    pid : int
        The worker.
    exitcode : int
        Its exit status, or the negative number of the signal that killed it.
    task : str
        The name of the function that it was to call.
    """

    def __init__(self, message: str, pid: int, exitcode: int, task: str) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task

    def __reduce__(self) -> tuple[type[WorkerLost], tuple[str, int, int, str]]:
        return type(self), (str(self), self.pid, self.exitcode, self.task)


class OwnerDiedWarning(RuntimeWarning):
    """The process that held a lock died; the lock has passed to the process that asked next."""
