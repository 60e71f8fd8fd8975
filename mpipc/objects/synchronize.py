"""What synchronisation objects share above their mechanism."""

from __future__ import annotations

import errno
import multiprocessing
import operator
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext, assert_spawning

from .. import _stock
from .._registry import contexts
from ..contracts import WaitingRoom
from .views import SemaphoreView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MADE_FOR_FORK", "SEM_VALUE_MAX", "ConditionSurface", "checked_value", "made_for_fork"]

SEM_VALUE_MAX = 0x7FFFFFFF
MADE_FOR_FORK = (
    "A SemLock created in a fork context cannot be given to a process that is spawned: "
    "make it with the context that starts the process"
)


def checked_value(value: int, most: int) -> int:
    """The first value of a semaphore; raises what stock raises for what it cannot be.

    Raises
    ------
    TypeError
        It is no integer.
    OSError
        It is negative (EINVAL).
    OverflowError
        It is above `most`.
    """
    number = operator.index(value)
    if number < 0:
        raise OSError(errno.EINVAL, f"a semaphore's value must not be negative, got {value}")
    if number > most:
        raise OverflowError(f"a semaphore's value must be at most {most}, got {value}")
    return number


def made_for_fork(ctx: BaseContext | None) -> bool:
    """Whether a new lock of stock's context must refuse to be given to a spawned process.

    Stock's locks refuse, having lost their names at once in a context that forks, so an installed
    mpipc does as well; locks from our own contexts may go anywhere.

    In the other contexts stock registers the new name, and restarts a resource tracker that has
    died. We have nothing to register, but a program that uses the tracker otherwise, as stock's
    shared_memory does, has it again. One that nobody has started is not needed.
    """
    tracker: Any = resource_tracker._resource_tracker
    installed = contexts().installed is not None
    if tracker._fd is None and not installed:
        return False
    if (ctx or multiprocessing.get_context()).get_start_method() == "fork":
        return installed
    if tracker._fd is not None:
        tracker.ensure_running()
    return False


class ConditionSurface(WaitingRoom, _stock.Condition):
    """Stock's condition around a mechanism's waiting room.

    A mechanism's class stands before this one, see :class:`mpipc.contracts.WaitingRoom`.
    """

    def __init__(self, lock: Any = None, *, ctx: BaseContext) -> None:
        self._lock = lock or ctx.RLock()
        self._open()
        self._make_methods()  # type: ignore[attr-defined]

    def __getstate__(self) -> Any:
        assert_spawning(self)
        return self._lock, self.block

    def __setstate__(self, state: Any) -> None:
        self._lock, block = state
        self._open(block)
        self._make_methods()  # type: ignore[attr-defined]

    @property
    def _sleeping_count(self) -> SemaphoreView:
        return SemaphoreView(self._waiters)

    @property
    def _woken_count(self) -> SemaphoreView:
        """Always 0: who was woken no longer counts as asleep."""
        return SemaphoreView(int)

    @property
    def _wait_semaphore(self) -> SemaphoreView:
        """Always 0: each sleeper is woken by itself."""
        return SemaphoreView(int)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {self._waiters()})>"
