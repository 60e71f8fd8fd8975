"""Stock builds its objects from semaphores; ours only show the numbers that those would have."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["SemaphoreView"]


class SemaphoreView:
    """What libraries and tests read of a semaphore, answered by whoever keeps the number."""

    def __init__(self, value: Callable[[], int]) -> None:
        self._value = value

    @property
    def _semlock(self) -> SemaphoreView:
        return self

    def get_value(self) -> int:
        """The units that a semaphore would have left."""
        return self._value()

    def release(self) -> None:
        """Nothing: the unit came back when the mechanism did what it stands for."""

    def _get_value(self) -> int:
        return self._value()

    def _is_zero(self) -> bool:
        return self._value() == 0
