"""What synchronisation objects share above their mechanism."""

from __future__ import annotations

import errno
import operator
from multiprocessing import synchronize
from multiprocessing.context import assert_spawning
from typing import TYPE_CHECKING, Any

from ..contracts import WaitingRoom
from .views import SemaphoreView

if TYPE_CHECKING:
    from .._context import MechanismContext

__all__ = ["ConditionSurface", "checked_value"]


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


class ConditionSurface(WaitingRoom, synchronize.Condition):
    """Stock's condition around a mechanism's waiting room.

    A mechanism's class stands before this one, see :class:`mpipc.contracts.WaitingRoom`.
    """

    def __init__(self, lock: Any = None, *, ctx: MechanismContext) -> None:
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
